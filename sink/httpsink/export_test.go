package httpsink

// OnlyLoopback is onlyLoopback, for no test can have a resolver lie.
var OnlyLoopback = onlyLoopback
