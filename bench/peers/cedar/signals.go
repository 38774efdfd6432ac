package main

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

// signalEntry is a signal as table.json has it.
type signalEntry struct {
	Name       string          `json:"name"`
	Subject    string          `json:"subject"`
	Type       string          `json:"type"`
	Value      json.RawMessage `json:"value"`
	ObservedAt time.Time       `json:"observed_at"`
	MaxAgeS    int64           `json:"max_age_s"`
}

type signal struct {
	name     cedar.String
	value    cedar.Value
	untilNs  int64
	rendered []byte
}

// kept is what is known of one principal. The record of all its signals is made when they arrive, and taken as it is
// until the first of them is too old: one comparison at each request judges the age of all.
type kept struct {
	signals    []signal
	all        cedar.Record
	rendered   []byte
	earliestNs int64
}

// table is what is known of each principal. A server that takes signals while it runs would swap a pointer to it.
type table map[string]*kept

func newTable(entries []signalEntry) (table, error) {
	made := table{}
	for _, entry := range entries {
		value, err := valueOf(entry)
		if err != nil {
			return nil, err
		}
		rendered, err := json.Marshal(map[string]any{"name": entry.Name, "value": entry.Value, "observed_at": entry.ObservedAt})
		if err != nil {
			return nil, err
		}
		one := made[entry.Subject]
		if one == nil {
			one = &kept{earliestNs: math.MaxInt64}
			made[entry.Subject] = one
		}
		until := entry.ObservedAt.Add(time.Duration(entry.MaxAgeS) * time.Second).UnixNano()
		one.signals = append(one.signals, signal{cedar.String(entry.Name), value, until, rendered})
		one.earliestNs = min(one.earliestNs, until)
	}
	for _, one := range made {
		one.all, one.rendered = one.goodAt(math.MinInt64)
	}
	return made, nil
}

// fresh is the record of the signals that are not too old, and the same for the log. Nobody known: an empty one.
func (t table) fresh(principal string, nowNs int64) (cedar.Record, []byte) {
	one := t[principal]
	if one == nil {
		return cedar.Record{}, nil
	}
	if nowNs < one.earliestNs {
		return one.all, one.rendered
	}
	return one.goodAt(nowNs)
}

func (k *kept) goodAt(nowNs int64) (cedar.Record, []byte) {
	values, rendered := cedar.RecordMap{}, []byte{}
	for _, one := range k.signals {
		if nowNs >= one.untilNs {
			continue
		}
		if len(values) > 0 {
			rendered = append(rendered, ',')
		}
		values[one.name] = one.value
		rendered = append(rendered, one.rendered...)
	}
	return cedar.NewRecord(values), rendered
}

func valueOf(entry signalEntry) (cedar.Value, error) {
	var parsed any
	if err := json.Unmarshal(entry.Value, &parsed); err != nil {
		return nil, fmt.Errorf("signal `%s`: %w", entry.Name, err)
	}
	switch value := parsed.(type) {
	case bool:
		return cedar.Boolean(value), nil
	case float64:
		return cedar.Long(value), nil
	case string:
		if entry.Type == "decimal" {
			return types.ParseDecimal(value)
		}
		return cedar.String(value), nil
	case []any:
		members := make([]cedar.Value, 0, len(value))
		for _, member := range value {
			text, ok := member.(string)
			if !ok {
				return nil, fmt.Errorf("signal `%s` is a set of something else than strings", entry.Name)
			}
			members = append(members, cedar.String(text))
		}
		return cedar.NewSet(members...), nil
	}
	return nil, fmt.Errorf("signal `%s` has a value of a type that is not known here", entry.Name)
}
