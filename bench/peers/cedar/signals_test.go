package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go"
)

var observed = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

func testTable(t *testing.T) table {
	t.Helper()
	made, err := newTable([]signalEntry{
		{Name: "incident", Subject: "a", Type: "bool", Value: json.RawMessage("false"), ObservedAt: observed, MaxAgeS: 60},
		{Name: "budget", Subject: "a", Type: "decimal", Value: json.RawMessage(`"0.75"`), ObservedAt: observed, MaxAgeS: 3600},
		{Name: "zones", Subject: "a", Type: "set", Value: json.RawMessage(`["pci"]`), ObservedAt: observed, MaxAgeS: 3600},
	})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestASignalIsGoneWhenItIsTooOldAndTheOthersStay(t *testing.T) {
	made := testTable(t)
	for _, row := range []struct {
		after time.Duration
		want  string
	}{
		{0, "incident budget zones"},
		{time.Minute - 1, "incident budget zones"},
		{time.Minute, "budget zones"},
		{time.Hour, ""},
	} {
		values, rendered := made.fresh("a", observed.Add(row.after).UnixNano())
		for _, name := range []string{"incident", "budget", "zones"} {
			_, there := values.Get(cedar.String(name))
			wanted := strings.Contains(row.want, name)
			if there != wanted || strings.Contains(string(rendered), `"`+name+`"`) != wanted {
				t.Errorf("after %v: %s there: %v, logged as %s", row.after, name, there, rendered)
			}
		}
		if !json.Valid([]byte("[" + string(rendered) + "]")) {
			t.Errorf("after %v: no JSON: %s", row.after, rendered)
		}
	}
}

func TestNobodyHasNoSignals(t *testing.T) {
	if values, rendered := testTable(t).fresh("b", 0); values.Len() != 0 || rendered != nil {
		t.Errorf("%v, %s", values, rendered)
	}
}

func TestAValueOfAnotherTypeIsRefused(t *testing.T) {
	for _, value := range []string{`{"a":1}`, `null`, `[1]`, `"`} {
		if _, err := valueOf(signalEntry{Name: "odd", Value: json.RawMessage(value)}); err == nil {
			t.Errorf("%s is taken", value)
		}
	}
	if _, err := valueOf(signalEntry{Name: "odd", Type: "decimal", Value: json.RawMessage(`"x"`)}); err == nil {
		t.Error("a decimal without digits is taken")
	}
}
