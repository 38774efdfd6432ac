package main

import (
	"encoding/json"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/cedar-policy/cedar-go"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"signalwarden.example/bench/peers/internal/door"
)

const (
	// flushEvery is well below the half second within which signalwarden's records are on disk.
	flushEvery = 200 * time.Millisecond
	// fullAt is when a decision itself writes what has gathered.
	fullAt = 256 << 10
)

// decision is what a line of the log says.
type decision struct {
	http      *auth.AttributeContext_HttpRequest
	path      string
	principal string
	route     *route
	resource  string
	arguments string
	signals   []byte
	reasons   []cedar.DiagnosticReason
	allow     bool
	err       error
}

// log is JSON lines in a file, gathered in memory between writes. One that can't be written refuses what comes.
type log struct {
	mutex  sync.Mutex
	file   *os.File
	buffer []byte
	failed error
	ended  chan struct{}
}

func openLog(name string) (*log, error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	made := &log{file: file, buffer: make([]byte, 0, 2*fullAt), ended: make(chan struct{})}
	go made.flushing()
	return made, nil
}

func (l *log) flushing() {
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	for {
		select {
		case <-l.ended:
			return
		case <-ticker.C:
			l.mutex.Lock()
			l.flush()
			l.mutex.Unlock()
		}
	}
}

// flush is called with the mutex held.
func (l *log) flush() {
	if len(l.buffer) == 0 || l.failed != nil {
		return
	}
	_, l.failed = l.file.Write(l.buffer)
	l.buffer = l.buffer[:0]
}

func (l *log) close() error {
	close(l.ended)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.flush()
	if err := l.file.Close(); err != nil {
		return err
	}
	return l.failed
}

func (l *log) write(made *decision) error {
	id, err := door.DecisionID()
	if err != nil {
		return err
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.failed != nil {
		return l.failed
	}
	l.buffer = made.append(l.buffer, id, time.Now())
	if len(l.buffer) >= fullAt {
		l.flush()
	}
	return l.failed
}

// append renders one line by hand, which costs less than encoding/json and its reflection.
func (d *decision) append(to []byte, id string, now time.Time) []byte {
	to = append(to, `{"decision_id":"`...)
	to = append(to, id...)
	to = append(to, `","time":"`...)
	to = now.UTC().AppendFormat(to, time.RFC3339Nano)
	to = append(to, `","allow":`...)
	to = strconv.AppendBool(to, d.allow)
	to = field(to, "principal", d.principal)
	to = field(to, "method", d.http.GetMethod())
	to = field(to, "host", d.http.GetHost())
	to = field(to, "path", d.path)
	if d.route != nil {
		to = field(to, "query", d.arguments)
		to = field(to, "action", string(d.route.action.ID))
		to = field(to, "resource_type", string(d.route.resourceType))
		to = field(to, "resource", d.resource)
	}
	to = append(to, `,"signals":[`...)
	to = append(to, d.signals...)
	to = append(to, `],"determining":[`...)
	for at, reason := range d.reasons {
		if at > 0 {
			to = append(to, ',')
		}
		to = quoted(to, string(reason.PolicyID))
	}
	to = append(to, ']')
	if d.err != nil {
		to = field(to, "error", d.err.Error())
	}
	return append(to, "}\n"...)
}

func field(to []byte, name, value string) []byte {
	to = append(to, `,"`...)
	to = append(to, name...)
	to = append(to, `":`...)
	return quoted(to, value)
}

// quoted is a JSON string: most are plain and copied, others are encoding/json's to write.
func quoted(to []byte, text string) []byte {
	for at := range len(text) {
		if c := text[at]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			written, err := json.Marshal(text)
			if err != nil {
				return append(to, `""`...)
			}
			return append(to, written...)
		}
	}
	to = append(to, '"')
	to = append(to, text...)
	return append(to, '"')
}
