module github.com/inprocess/meter/sink/stripesink/mocktest

go 1.26.0

require (
	github.com/inprocess/meter v0.0.0
	github.com/stretchr/testify v1.12.1
	github.com/stripe/stripe-go/v76 v76.25.0
)

require (
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/time v0.16.0 // indirect
)

replace github.com/inprocess/meter => ../../..
