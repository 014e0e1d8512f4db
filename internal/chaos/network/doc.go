// Package network has sinks deliver over TCP through a proxy that does to connections
// what networks do: it cuts, resets, delays, slows and refuses them, before the request
// has arrived or after it was carried out. It holds tests only, in a module of their own,
// for the proxy's sake.
//
//	METER_NETWORK_ROUNDS=500 go test -timeout 60m -v ./internal/chaos/network
package network
