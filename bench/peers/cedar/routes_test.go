package main

import "testing"

func testRoutes(t *testing.T) routes {
	t.Helper()
	made := routes{}
	for _, entry := range []routeEntry{
		{Action: "transfer", Host: "payments.*", Method: "POST", Path: "/v1/accounts/{account}/transfers", ResourceType: "Account", Resource: "account"},
		{Action: "thing", Host: "things.*", Method: "GET", Path: "/v1/thing/{thing}", ResourceType: "Thing", Resource: "thing"},
	} {
		if err := made.add(entry, nil); err != nil {
			t.Fatal(err)
		}
	}
	return made
}

func TestARequestFindsItsRouteAndResource(t *testing.T) {
	made := testRoutes(t)
	found, resource := made.find("POST", "payments.example", "/v1/accounts/42/transfers")
	if found == nil || found.action.ID != "transfer" || resource != "42" {
		t.Errorf("%v, %q", found, resource)
	}
	found, resource = made.find("GET", "things.example", "/v1/thing/7")
	if found == nil || found.action.ID != "thing" || resource != "7" {
		t.Errorf("%v, %q", found, resource)
	}
}

func TestWhatNoRouteMeansHasNone(t *testing.T) {
	made := testRoutes(t)
	for _, row := range [][3]string{
		{"GET", "payments.example", "/v1/accounts/42/transfers"},
		{"POST", "things.example", "/v1/accounts/42/transfers"},
		{"POST", "payments.example", "/v1/accounts/42"},
		{"POST", "payments.example", "/v1/accounts/42/transfers/"},
		{"POST", "payments.example", "/v1/accounts//transfers"},
		{"POST", "payments.example", "/v1/accounts/../transfers"},
		{"POST", "payments.example", "/v1/accounts/4%32/transfers"},
		{"POST", "payments.example", "v1/accounts/42/transfers"},
		{"POST", "payments.example", "/"},
		{"POST", "payments.example", ""},
	} {
		if found, _ := made.find(row[0], row[1], row[2]); found != nil {
			t.Errorf("%v is %v", row, found.action)
		}
	}
}

func TestARouteMustNameItsResource(t *testing.T) {
	entry := routeEntry{Action: "transfer", Method: "GET", Path: "/v1/{other}", Resource: "account"}
	if err := (routes{}).add(entry, nil); err == nil {
		t.Error("taken")
	}
}

func TestArgumentsAreWholeNumbersOnce(t *testing.T) {
	made := &route{query: []string{"amount"}}
	for _, query := range []string{"", "other=1", "amount=1", "amount=-7&other=x"} {
		if _, err := made.arguments(query); err != nil {
			t.Errorf("%q: %v", query, err)
		}
	}
	for _, query := range []string{"amount=", "amount=x", "amount=1.5", "amount=1&amount=2", "amount=99999999999999999999", "%zz"} {
		if _, err := made.arguments(query); err == nil {
			t.Errorf("%q is taken", query)
		}
	}
}
