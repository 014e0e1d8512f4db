package main

import (
	"io"
	"net/http"
	"sync"
)

// account is one customer's use of one feature.
type account struct{ feature, customer string }

// tally is what the clients know. They never look at the meter.
type tally struct{ sent, answered int64 }

var (
	features  = []string{"tax-report", "search", "summary"}
	customers = []string{"cus_ada", "cus_bob", "cus_eve"}
)

// use lets clients send requests at the same time, each one after another, until
// it has sent so many or the server is gone.
func use(url string, clients, requests int) map[account]tally {
	var (
		mu   sync.Mutex
		all  = map[account]tally{}
		work sync.WaitGroup
	)
	for client := range clients {
		work.Go(func() {
			mine := map[account]tally{}
			for n := range requests {
				a := account{features[n%len(features)], customers[(n+client)/len(features)%len(customers)]}
				t := mine[a]
				t.sent++
				ok := request(url, a)
				if ok {
					t.answered++
				}
				mine[a] = t
				if !ok {
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			add(all, mine)
		})
	}
	work.Wait()
	return all
}

// request reports whether the customer got the whole answer, and a good one.
func request(url string, a account) bool {
	r, err := http.NewRequest(http.MethodPost, url+"/"+a.feature, nil)
	if err != nil {
		return false
	}
	r.Header.Set("X-Customer", a.customer)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err == nil && answer.StatusCode == http.StatusOK
}

func add(all, more map[account]tally) {
	for a, t := range more {
		all[a] = tally{all[a].sent + t.sent, all[a].answered + t.answered}
	}
}

func total(all map[account]tally) (t tally) {
	for _, one := range all {
		t.sent += one.sent
		t.answered += one.answered
	}
	return t
}
