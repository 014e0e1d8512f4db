package stripetest

import (
	"cmp"
	"maps"
	"time"
)

// Product is what prices belong to. Its zero value will do.
//
// Concurrency: a plain value.
type Product struct {
	ID       string // "": made up
	Name     string // "": the ID
	Archived bool
	Metadata map[string]string // nil: none
}

type product struct {
	Product
	created time.Time
}

// AddProduct adds a product and returns it as it is now. It panics if the ID is
// taken.
func (s *Server) AddProduct(p Product) Product {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addProduct(p).Product
}

// ChangeProduct changes a product, which must exist.
func (s *Server) ChangeProduct(id string, change func(*Product)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.products.get(id)
	change(&p.Product)
	p.ID = id
}

func (s *Server) addProduct(p Product) *product {
	p.ID = cmp.Or(p.ID, s.newID("prod"))
	p.Name = cmp.Or(p.Name, p.ID)
	p.Metadata = maps.Clone(p.Metadata)
	added := &product{p, s.now()}
	s.products.add(p.ID, added)
	return added
}

func (s *Server) productObject(p *product) object {
	return object{
		"id": p.ID, "object": "product", "active": !p.Archived, "created": p.created.Unix(),
		"updated": p.created.Unix(), "livemode": s.Live, "name": p.Name, "metadata": orEmpty(p.Metadata),
		"default_price": nil, "description": nil, "images": []string{}, "marketing_features": []any{},
		"package_dimensions": nil, "shippable": nil, "statement_descriptor": nil, "tax_code": nil,
		"type": "service", "unit_label": nil, "url": nil,
	}
}

func (s *Server) getProduct(r *request) response {
	p, found := s.products.byID[r.PathValue("id")]
	if !found {
		return missing("product", r.PathValue("id"), "id")
	}
	return ok(s.productObject(p))
}

func (s *Server) createProduct(r *request) func() response {
	r.only("id", "name", "active", "metadata", "description", "unit_label", "type", "statement_descriptor")
	p := Product{
		ID:       r.get("id"),
		Name:     r.required("name"),
		Archived: r.oneOf("active", "true", "false") == "false",
		Metadata: r.dict("metadata"),
	}
	return func() response {
		if _, taken := s.products.byID[p.ID]; taken {
			return invalid("id", "resource_already_exists", "Product already exists.")
		}
		return ok(s.productObject(s.addProduct(p)))
	}
}
