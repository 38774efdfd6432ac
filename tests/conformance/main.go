// Command cases prints OPA's conformance cases as JSON, one a line, as OPA's own tests read them. The documents of a case
// are texts of JSON within it, so that no reader changes their numbers.
//
// The folder of the cases is its argument: `v1/test/cases/testdata` of the module. They are Apache-2.0, of the OPA authors,
// and are read where Go keeps the module.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/open-policy-agent/opa/v1/test/cases"
)

type line struct {
	Folder       string   `json:"folder"`
	Note         string   `json:"note"`
	Query        string   `json:"query"`
	Modules      []string `json:"modules,omitempty"`
	Data         *string  `json:"data,omitempty"`
	Input        *string  `json:"input,omitempty"`
	InputTerm    *string  `json:"input_term,omitempty"`
	WantResult   *string  `json:"want_result,omitempty"`
	SortBindings bool     `json:"sort_bindings,omitempty"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: cases FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(root string) error {
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for _, version := range []string{"v0", "v1"} {
		set, err := cases.Load(filepath.Join(root, version))
		if err != nil {
			return err
		}
		for i := range set.Cases {
			written, err := written(root, &set.Cases[i])
			if err != nil {
				return err
			}
			if err := out.Encode(written); err != nil {
				return err
			}
		}
	}
	return nil
}

func written(root string, tc *cases.TestCase) (*line, error) {
	folder, err := filepath.Rel(root, filepath.Dir(tc.Filename))
	if err != nil {
		return nil, err
	}
	made := &line{
		Folder: filepath.ToSlash(folder), Note: tc.Note, Query: tc.Query, Modules: tc.Modules,
		InputTerm: tc.InputTerm, SortBindings: tc.SortBindings,
	}
	if tc.Data != nil {
		made.Data, err = text(*tc.Data, err)
	}
	if tc.Input != nil {
		made.Input, err = text(*tc.Input, err)
	}
	// An error is wanted before a result.
	if tc.WantResult != nil && tc.WantError == nil && tc.WantErrorCode == nil {
		made.WantResult, err = text(*tc.WantResult, err)
	}
	return made, err
}

func text(document any, before error) (*string, error) {
	if before != nil {
		return nil, before
	}
	var written bytes.Buffer
	encoder := json.NewEncoder(&written)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(document); err != nil {
		return nil, err
	}
	made := written.String()
	return &made, nil
}
