package door

import (
	"testing"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

func attributes(principal string, header string) *auth.AttributeContext {
	return &auth.AttributeContext{
		Source: &auth.AttributeContext_Peer{Principal: principal},
		Request: &auth.AttributeContext_Request{
			Http: &auth.AttributeContext_HttpRequest{Headers: map[string]string{xfcc: header}},
		},
	}
}

func TestThePrincipalIsTheVerifiedPeerElseTheLastURIOfXFCC(t *testing.T) {
	for _, row := range []struct{ principal, header, want string }{
		{"spiffe://a/b", "URI=spiffe://c/d", "spiffe://a/b"},
		{"", "URI=spiffe://c/d", "spiffe://c/d"},
		{"", "By=spiffe://x;URI=spiffe://first,Hash=1;URI=spiffe://last", "spiffe://last"},
		{"", `Subject="CN=a,URI=spiffe://hidden";URI=spiffe://c/d`, "spiffe://c/d"},
		{"", `URI=spiffe://first,Subject="a\",URI=spiffe://hidden"`, ""},
		{"", "URI=spiffe://first,Hash=1", ""},
		{"", "", ""},
	} {
		if got := Principal(attributes(row.principal, row.header)); got != row.want {
			t.Errorf("of %q and %q: %q, not %q", row.principal, row.header, got, row.want)
		}
	}
}

func TestARequestWithoutAnythingHasNoPrincipal(t *testing.T) {
	if got := Principal(nil); got != "" {
		t.Errorf("%q", got)
	}
}
