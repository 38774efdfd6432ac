// Package door is what the Go peers share: a gRPC server for Authorization/Check on loopback or a Unix socket, set up
// as sparingly as grpc-go can be, and what both read of a request in the same way.
package door

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	types "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

const (
	// maxMessage is that of grpc-go by default, as in OPA's plugin.
	maxMessage = 4 << 20
	// xfcc is Envoy's header for the certificate of its own peer.
	xfcc = "x-forwarded-client-cert"
	// collectAt lets garbage grow to four times what lives before it is collected. By default it is once, which took a
	// fifth more processor time here. GOGC in the environment goes before.
	collectAt = 400
)

// Authorizer decides one request. An error is a refusal: it is never an allow.
type Authorizer interface {
	Allow(ctx context.Context, request *auth.CheckRequest) (bool, error)
}

type service struct {
	auth.UnimplementedAuthorizationServer
	authorizer Authorizer
}

// Answers are made once: grpc-go only reads them. A denial has a status, as Envoy's clients see it; neither has headers,
// a body or metadata, which a real deployment would mostly want.
var (
	allowed = &auth.CheckResponse{
		Status:       &status.Status{Code: int32(code.Code_OK)},
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{}},
	}
	denied = &auth.CheckResponse{
		Status: &status.Status{Code: int32(code.Code_PERMISSION_DENIED)},
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
			Status: &types.HttpStatus{Code: types.StatusCode_Forbidden},
		}},
	}
)

// Check is envoy.service.auth.v3.Authorization/Check.
func (s *service) Check(ctx context.Context, request *auth.CheckRequest) (*auth.CheckResponse, error) {
	if allow, err := s.authorizer.Allow(ctx, request); err != nil || !allow {
		return denied, nil
	}
	return allowed, nil
}

// Serve answers on the address, `host:port` or `unix:///path`, until the process is told to end. Once it listens it says
// so on standard output in one line: the port, or 0 for a socket.
func Serve(address string, authorizer Authorizer) error {
	network, where := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, where = "unix", path
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	listener, err := net.Listen(network, where)
	if err != nil {
		return err
	}
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage),
		// Workers keep their stacks; a new goroutine for each call has to grow its own.
		grpc.NumStreamWorkers(uint32(2*runtime.GOMAXPROCS(0))),
		grpc.SharedWriteBuffer(true),
	)
	auth.RegisterAuthorizationServer(server, &service{authorizer: authorizer})
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ended
		server.Stop()
	}()
	port := 0
	if tcp, ok := listener.Addr().(*net.TCPAddr); ok {
		port = tcp.Port
	}
	fmt.Println(port)
	return server.Serve(listener)
}

// Principal is the peer that Envoy verified, or where Envoy's listener is plain, the URI of the last element of XFCC.
func Principal(attributes *auth.AttributeContext) string {
	if name := attributes.GetSource().GetPrincipal(); name != "" {
		return name
	}
	return lastURI(Header(attributes.GetRequest().GetHttp(), xfcc))
}

// Header is a request header, wherever Envoy has put it.
func Header(http *auth.AttributeContext_HttpRequest, name string) string {
	if value, ok := http.GetHeaders()[name]; ok {
		return value
	}
	var headers []*core.HeaderValue = http.GetHeaderMap().GetHeaders()
	for _, header := range headers {
		if header.GetKey() == name {
			if raw := header.GetRawValue(); len(raw) > 0 {
				return string(raw)
			}
			return header.GetValue()
		}
	}
	return ""
}

// lastURI is the first URI of the last element, the only one that Envoy itself has written. Quotes may hide commas.
func lastURI(header string) string {
	start, quoted := 0, false
	for at := 0; at < len(header); at++ {
		switch header[at] {
		case '\\':
			at++
		case '"':
			quoted = !quoted
		case ',':
			if !quoted {
				start = at + 1
			}
		}
	}
	for pair := range strings.SplitSeq(header[start:], ";") {
		if key, value, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && strings.EqualFold(key, "uri") {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}
