package main

import (
	"fmt"
	"strings"

	"github.com/cedar-policy/cedar-go"
)

// routeEntry is a route as table.json has it.
type routeEntry struct {
	Action       string   `json:"action"`
	Host         string   `json:"host"`
	Method       string   `json:"method"`
	Path         string   `json:"path"`
	ResourceType string   `json:"resource_type"`
	Resource     string   `json:"resource"`
	Query        []string `json:"query"`
}

// route is what a request is found to be. Its arguments are whole numbers, each optional.
type route struct {
	action       cedar.EntityUID
	hostPrefix   string
	resourceType cedar.EntityType
	resourceAt   int
	query        []string
	policies     slice
}

// node is one segment of the paths below a method.
type node struct {
	literal map[string]*node
	any     *node
	routes  []*route
}

// routes finds a route by method, path and host.
type routes map[string]*node

func (r routes) add(entry routeEntry, policies slice) error {
	made := &route{
		action:       cedar.NewEntityUID("Action", cedar.String(entry.Action)),
		hostPrefix:   strings.TrimSuffix(entry.Host, "*"),
		resourceType: cedar.EntityType(entry.ResourceType),
		resourceAt:   -1,
		query:        entry.Query,
		policies:     policies,
	}
	at := r[entry.Method]
	if at == nil {
		at = &node{literal: map[string]*node{}}
		r[entry.Method] = at
	}
	for number, segment := range strings.Split(strings.TrimPrefix(entry.Path, "/"), "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			if strings.TrimSuffix(name, "}") == entry.Resource {
				made.resourceAt = number
			}
			if at.any == nil {
				at.any = &node{literal: map[string]*node{}}
			}
			at = at.any
			continue
		}
		next := at.literal[segment]
		if next == nil {
			next = &node{literal: map[string]*node{}}
			at.literal[segment] = next
		}
		at = next
	}
	if made.resourceAt < 0 {
		return fmt.Errorf("the path of `%s` does not name its resource", entry.Action)
	}
	at.routes = append(at.routes, made)
	return nil
}

// find gives the route and the id of its resource, or nil. A path that could mean two things has no route: one with a
// percent sign, an empty segment or a segment of dots.
func (r routes) find(method, host, path string) (*route, string) {
	start := r[method]
	if start == nil || len(path) < 2 || path[0] != '/' || strings.Contains(path, "%") {
		return nil, ""
	}
	end := start.walk(path[1:])
	if end == nil {
		return nil, ""
	}
	for _, candidate := range end.routes {
		if strings.HasPrefix(host, candidate.hostPrefix) {
			return candidate, segment(path[1:], candidate.resourceAt)
		}
	}
	return nil, ""
}

// walk goes by literals first. Templates here don't overlap, so it need not come back.
func (n *node) walk(path string) *node {
	for more := true; more; {
		var part string
		part, path, more = strings.Cut(path, "/")
		if part == "" || part == "." || part == ".." {
			return nil
		}
		next := n.literal[part]
		if next == nil {
			next = n.any
		}
		if next == nil {
			return nil
		}
		n = next
	}
	return n
}

func segment(path string, number int) string {
	for ; number > 0; number-- {
		_, path, _ = strings.Cut(path, "/")
	}
	part, _, _ := strings.Cut(path, "/")
	return part
}
