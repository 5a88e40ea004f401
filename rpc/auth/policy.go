package auth

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/rpc"
)

func require(user any) error {
	if valid(user) == nil {
		return rpc.Errorf(rpc.Unauthenticated, "authentication required")
	}
	return nil
}

// Require returns middleware that refuses requests of callers without a valid
// identity, with [rpc.Unauthenticated]. The task authenticate passes, and so does what
// this side asks of peers. It is for single services; Config.Required covers all.
func Require() rpc.Middleware {
	return func(next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, r *rpc.Request) (codec.Raw, error) {
			if !isExempt(r) {
				if err := require(rpc.UserFrom(ctx)); err != nil {
					return nil, err
				}
			}
			return next(ctx, r)
		}
	}
}

func isExempt(r *rpc.Request) bool {
	return r.Outgoing() || (r.Op() == rpc.OpTask && r.Member() == "authenticate")
}

// Rule says who may do something. The zero Rule admits everybody who is authenticated.
type Rule struct {
	Roles       []string // any one of them is needed
	Permissions []string // all of them are needed
	Public      bool     // nothing is needed
}

// Policy says who may use what. It must not be changed once it is in use.
type Policy struct {
	// Rules are found by "service.member" or "service.*", with or without the version,
	// as in "market@1.0.0.add", and by "task:name" or "task:*". A member is a method, or
	// a property, read or written. Of the rules for a request only the first one counts:
	// one for the member before one for all, and one with the version before one
	// without.
	Rules map[string]Rule

	// DefaultDeny refuses what there is no rule for. Tasks by which peers look services
	// up, and give them back, pass nevertheless unless there is a rule for them.
	DefaultDeny bool
}

// lookUpTasks are those that calling anything needs.
var lookUpTasks = map[string]bool{"abilities": true, "query_interface": true, "unref_service": true}

// Middleware returns middleware for an endpoint, or for a service, that enforces the
// policy: [rpc.Unauthenticated] for callers that are not known, [rpc.PermissionDenied] for
// those that may not. It returns an error if the key of a rule cannot match anything,
// because such a rule would protect nothing.
func (p Policy) Middleware() (rpc.Middleware, error) {
	for key := range p.Rules {
		if !isRuleKey(key) {
			return nil, fmt.Errorf(`auth: policy: rule %q: want "service.member", "service.*" or "task:name"`, key)
		}
	}
	p.Rules = maps.Clone(p.Rules)
	return func(next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, r *rpc.Request) (codec.Raw, error) {
			if !isExempt(r) {
				if err := p.check(ctx, r); err != nil {
					return nil, err
				}
			}
			return next(ctx, r)
		}
	}, nil
}

func isRuleKey(key string) bool {
	if name, isTask := strings.CutPrefix(key, "task:"); isTask {
		return name != ""
	}
	i := strings.LastIndexByte(key, '.')
	if i <= 0 || i == len(key)-1 {
		return false
	}
	member := key[i+1:]
	// "market@1.0.0" lacks the member, although it has dots.
	return member == "*" || member[0] < '0' || member[0] > '9'
}

func (p *Policy) check(ctx context.Context, r *rpc.Request) error {
	rule, ok := p.rule(r)
	switch {
	case !ok && (!p.DefaultDeny || (r.Op() == rpc.OpTask && lookUpTasks[r.Member()])), rule.Public:
		return nil
	}
	i := From(ctx)
	switch {
	case i == nil:
		return require(nil)
	case !ok, len(rule.Roles) > 0 && !i.HasRole(rule.Roles...), !i.HasPermissions(rule.Permissions...):
		return rpc.Errorf(rpc.PermissionDenied, "not allowed")
	}
	return nil
}

// rule returns the rule for a request, if there is one.
func (p *Policy) rule(r *rpc.Request) (rule Rule, ok bool) {
	if r.Op() == rpc.OpTask {
		if rule, ok = p.Rules["task:"+r.Member()]; !ok {
			rule, ok = p.Rules["task:*"]
		}
		return rule, ok
	}
	qualified := r.Service()
	name, _, _ := strings.Cut(qualified, "@")
	for _, member := range [...]string{r.Member(), "*"} {
		for _, service := range [...]string{qualified, name} {
			if rule, ok = p.Rules[service+"."+member]; ok {
				return rule, true
			}
		}
	}
	return Rule{}, false
}
