module github.com/inprocess/meter/sink/stripesink/mocktest

go 1.26.0

require (
	github.com/inprocess/meter v0.0.0
	github.com/stretchr/testify v1.12.1
	github.com/stripe/stripe-go/v76 v76.25.0
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect

replace github.com/inprocess/meter => ../../..
