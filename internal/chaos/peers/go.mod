module github.com/inprocess/meter/internal/chaos/peers

go 1.26.0

require (
	github.com/inprocess/meter v0.0.0
	github.com/posthog/posthog-go v1.5.2
	github.com/stretchr/testify v1.12.1
	gopkg.in/segmentio/analytics-go.v3 v3.1.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	github.com/segmentio/backo-go v1.1.0 // indirect
	github.com/xtgo/uuid v0.0.0-20140804021211-a0b114877d4c // indirect
	go.opentelemetry.io/otel v1.47.0 // indirect
	go.opentelemetry.io/otel/metric v1.47.0 // indirect
	go.opentelemetry.io/otel/trace v1.47.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)

replace github.com/inprocess/meter => ../../..
