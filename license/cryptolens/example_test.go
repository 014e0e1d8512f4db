package cryptolens_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
)

// Recording usage takes what it takes in the vendor's own SDKs.
func ExampleClient_RecordUsage() {
	srv := cryptolenstest.New()
	key := license.NewKey(srv.AddKey(cryptolenstest.Key{ProductID: 3646}).Key)
	client := cryptolens.NewClient(cryptolens.ClientConfig{
		Token:   "token",
		BaseURL: cryptolenstest.URL, HTTPClient: srv.Client(), // in production: leave out
	})

	err := client.RecordUsage(context.Background(), 3646, key, 5)
	fmt.Println("recorded:", err == nil)

	srv.Script(cryptolenstest.Fault{Answer: cryptolenstest.Drop, Applied: true}) // a reply gets lost
	err = client.RecordUsage(context.Background(), 3646, key, 5)
	fmt.Println("in doubt:", errors.Is(err, cryptolens.ErrInDoubt))

	err = client.RecordUsage(context.Background(), 3646, license.NewKey("unknown"), 5)
	fmt.Println("not applied:", errors.Is(err, cryptolens.ErrNotApplied))
	if e, ok := errors.AsType[*cryptolens.Error](err); ok {
		fmt.Println(e.Message)
	}
	fmt.Println("billed:", srv.Total(3646, key.Reveal()))
	// Output:
	// recorded: true
	// in doubt: true
	// not applied: true
	// Could not find the key.
	// billed: 10
}

// A counter that must not pass a limit.
func ExampleClient_IncrementUpTo() {
	srv := cryptolenstest.New()
	key := srv.AddKey(cryptolenstest.Key{ProductID: 3646})
	client := cryptolens.NewClient(cryptolens.ClientConfig{Token: "token", BaseURL: cryptolenstest.URL, HTTPClient: srv.Client()})
	ctx, owner := context.Background(), cryptolens.Owner{ProductID: 3646, Key: license.NewKey(key.Key)}

	if _, err := client.AddDataObject(ctx, owner, cryptolens.DataObject{Name: "credits-used"}); err != nil {
		fmt.Println(err)
	}
	used := cryptolens.Ref{Name: "credits-used"}
	fmt.Println("80 of 100:", client.IncrementUpTo(ctx, owner, used, 80, 100) == nil)
	fmt.Println("30 more:", client.IncrementUpTo(ctx, owner, used, 30, 100) == nil)
	list, err := client.DataObjects(ctx, owner, "credits-used")
	fmt.Println(list[0].Int, err)
	// Output:
	// 80 of 100: true
	// 30 more: false
	// 80 <nil>
}

// A seat that floats from machine to machine.
func ExampleClient_Heartbeat() {
	srv := cryptolenstest.New()
	key := license.NewKey(srv.AddKey(cryptolenstest.Key{ProductID: 3646, MaxNoOfMachines: 1}).Key)
	client := cryptolens.NewClient(cryptolens.ClientConfig{Token: "token", BaseURL: cryptolenstest.URL, HTTPClient: srv.Client()})
	seat := cryptolens.Activation{Machine: "laptop-7", Floating: 5 * time.Minute}

	ctx, stop := context.WithCancel(context.Background())
	if _, err := client.Activate(ctx, 3646, key, seat); err != nil {
		fmt.Println(err)
	}
	ended := make(chan error)
	go func() { ended <- client.Heartbeat(ctx, 3646, key, seat) }()

	_, err := client.Activate(ctx, 3646, key, cryptolens.Activation{Machine: "laptop-8", Floating: 5 * time.Minute})
	fmt.Println("another one:", errors.Is(err, cryptolens.ErrMachineLimit))

	stop()
	fmt.Println("end:", <-ended)
	err = client.Deactivate(context.Background(), 3646, key, "laptop-7", true)
	fmt.Println("free again:", err == nil && len(srv.Machines(3646, key.Reveal())) == 0)
	// Output:
	// another one: true
	// end: <nil>
	// free again: true
}
