//go:build race

package cache

const racing = true
