// Package codec turns Go values into MessagePack and back, in the profile that
// Netron peers in TypeScript speak.
package codec
