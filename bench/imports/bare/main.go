// Bare is a web server that counts nothing.
package main

import (
	"net/http"
)

func main() {
	_ = http.ListenAndServe("localhost:0", nil)
}
