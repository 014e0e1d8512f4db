// Package peers kills processes that count by this library, and processes that count by
// others, and prints side by side what became of the counts. It holds tests only, in a
// module of their own, for the others' sake.
//
//	METER_PEER_ROUNDS=20 go test -v ./internal/chaos/peers
package peers
