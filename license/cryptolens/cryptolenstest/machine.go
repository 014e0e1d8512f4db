package cryptolenstest

import (
	"net"
	"slices"
	"time"
)

const (
	floating  = "floating:"
	overdraft = "floating:overdraft:"
)

// expire forgets floating machines whose time has passed.
func (k *key) expire(now time.Time) {
	k.machines = slices.DeleteFunc(k.machines, func(m Machine) bool {
		return !m.Expires.IsZero() && !now.Before(m.Expires)
	})
}

func (s *Server) activate(r *request) reply {
	interval, ok := r.int("FloatingTimeInterval", 0)
	over, overOK := r.int("MaxOverdraft", 0)
	switch {
	case !ok || !overOK || interval < 0 || over < 0:
		return *refuse("The input parameters were incorrect.")
	case r.key.Block:
		return *refuse("The key is blocked and cannot be accessed.")
	case r.key.MaxNoOfMachines != 0 && !r.key.place(r, interval, over):
		return *refuse("Cannot activate the new device as the limit has been reached.")
	}
	return s.license(r)
}

// place keeps the machine of the request, unless there is no room for it.
func (k *key) place(r *request, interval, over int) bool {
	k.expire(r.now)
	m := Machine{Mid: r.get("MachineCode"), FriendlyName: r.get("FriendlyName"), IP: address(r), Time: r.now}
	if interval > 0 {
		m.Expires = r.now.Add(time.Duration(interval) * time.Second)
	}
	if at := k.find(r.get("MachineCode"), interval > 0); at >= 0 {
		k.machines[at].Expires = m.Expires
		return true
	}
	limit := k.MaxNoOfMachines
	switch n := len(k.machines); {
	case limit < 0 || n < limit:
		if interval > 0 {
			m.Mid = floating + m.Mid
		}
	case interval > 0 && n < limit+over:
		m.Mid = overdraft + m.Mid
	default:
		return false
	}
	k.machines = append(k.machines, m)
	return true
}

// find is the index of a machine, or -1.
func (k *key) find(code string, isFloating bool) int {
	return slices.IndexFunc(k.machines, func(m Machine) bool {
		if !isFloating {
			return m.Mid == code
		}
		return m.Mid == floating+code || m.Mid == overdraft+code
	})
}

func (s *Server) deactivate(r *request) reply {
	r.key.expire(r.now)
	at := r.key.find(r.get("MachineCode"), r.bool("Floating"))
	if at < 0 {
		return *refuse("Either the machine code was never activated or key activation feature was never set up.")
	}
	r.key.machines = slices.Delete(r.key.machines, at, at+1)
	return done()
}

func (s *Server) getKey(r *request) reply {
	r.key.expire(r.now)
	return s.license(r)
}

// address is the client's, without a port.
func address(r *request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return "127.0.0.1" // through Server.Client, which has no connection
	}
	return host
}
