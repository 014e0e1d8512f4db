package cryptolens_test

import (
	"math"
	"testing"

	"github.com/inprocess/meter/license/cryptolens"
	"github.com/stretchr/testify/require"
)

func TestDataObjects(t *testing.T) {
	t.Parallel()
	for name, machine := range map[string]string{"of a key": "", "of a machine": "m1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, client := newServer(t)
			ctx, owner := t.Context(), cryptolens.Owner{ProductID: product, Key: key, Machine: machine}
			now := func() cryptolens.DataObject {
				list, err := client.DataObjects(ctx, owner, "credits")
				require.NoError(t, err)
				require.Len(t, list, 1)
				return list[0]
			}
			none, err := client.DataObjects(ctx, owner, "")
			require.NoError(t, err)
			require.Empty(t, none)

			id, err := client.AddDataObject(ctx, owner, cryptolens.DataObject{Name: "credits", String: "a&b=c", Int: -7})
			require.NoError(t, err)
			require.Equal(t, cryptolens.DataObject{ID: id, Name: "credits", String: "a&b=c", Int: -7}, now())
			require.ErrorIs(t, second(client.AddDataObject(ctx, owner, cryptolens.DataObject{Name: "credits"})), cryptolens.ErrUnknown)

			byID, byName := cryptolens.Ref{ID: id}, cryptolens.Ref{Name: "credits"}
			require.NoError(t, client.SetInt(ctx, owner, byName, -3))
			require.NoError(t, client.SetString(ctx, owner, byID, "ü"))
			require.NoError(t, client.Increment(ctx, owner, byID, 10))
			require.NoError(t, client.Decrement(ctx, owner, byName, 2))
			require.Equal(t, cryptolens.DataObject{ID: id, Name: "credits", String: "ü", Int: 5}, now())

			require.NoError(t, client.IncrementUpTo(ctx, owner, byID, 5, 10), "the bound is inclusive")
			require.ErrorIs(t, client.IncrementUpTo(ctx, owner, byID, 1, 10), cryptolens.ErrInDoubt)
			require.NoError(t, client.DecrementDownTo(ctx, owner, byID, 10, 0))
			require.ErrorIs(t, client.DecrementDownTo(ctx, owner, byID, 1, 0), cryptolens.ErrInDoubt)
			require.Zero(t, now().Int)

			require.NoError(t, client.SetInt(ctx, owner, byID, math.MaxInt32))
			require.ErrorIs(t, client.Increment(ctx, owner, byID, 1), cryptolens.ErrInDoubt, "overflow")
			require.EqualValues(t, math.MaxInt32, now().Int)
			require.NoError(t, client.SetInt(ctx, owner, byID, math.MinInt32))
			require.ErrorIs(t, client.Decrement(ctx, owner, byID, 1), cryptolens.ErrInDoubt, "overflow")
			require.EqualValues(t, math.MinInt32, now().Int)

			require.ErrorIs(t, client.SetInt(ctx, owner, cryptolens.Ref{Name: "absent"}, 1), cryptolens.ErrUnknown)
			other := map[string]string{"": "m1", "m1": ""}[machine]
			require.Empty(t, srv.DataObjects(product, keyText, other))
			require.Len(t, srv.DataObjects(product, keyText, machine), 1)
		})
	}
}

// Absent, null and empty all mean none.
func TestNoDataObjects(t *testing.T) {
	t.Parallel()
	for _, reply := range []map[string]any{
		{"result": 0}, {"result": 0, "dataObjects": nil}, {"result": 0, "DataObjects": []any{}},
	} {
		client := newClient(served(t, answer(200, reply)), token)
		list, err := client.DataObjects(t.Context(), cryptolens.Owner{ProductID: product, Key: key}, "")
		require.NoError(t, err)
		require.Empty(t, list)
	}
	for _, wrong := range []any{"", 7, []any{7}, map[string]any{}} {
		client := newClient(served(t, answer(200, map[string]any{"result": 0, "dataObjects": wrong})), token)
		_, err := client.DataObjects(t.Context(), cryptolens.Owner{ProductID: product, Key: key}, "")
		require.ErrorIs(t, err, cryptolens.ErrReply, "%v", wrong)
	}
	client := newClient(served(t, answer(200, map[string]any{"result": 0})), token)
	_, err := client.AddDataObject(t.Context(), cryptolens.Owner{ProductID: product, Key: key}, cryptolens.DataObject{Name: "x"})
	require.ErrorIs(t, err, cryptolens.ErrReply, "an ID is missing")
}
