// Reads what deploy/ holds for the tests of it, which know JSON alone.
//
//	deploy-check compose FILE...   loads a Compose file as Docker does, checks it whole, prints the model as JSON
//	deploy-check documents         YAML documents on stdin, a JSON array of them on stdout
//	deploy-check schema DIR FILE... CustomResourceDefinitions , a JSON schema for each version: DIR/KIND_VERSION.json
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"go.yaml.in/yaml/v4"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) > 1 && args[0] == "compose":
		return compose(args[1:])
	case len(args) == 1 && args[0] == "documents":
		return documents(os.Stdin)
	case len(args) > 2 && args[0] == "schema":
		return schemas(args[1], args[2:])
	}
	return errors.New("usage: deploy-check compose FILE... | documents | schema DIR FILE...")
}

func compose(files []string) error {
	options, err := cli.NewProjectOptions(files, cli.WithName("obtrace"), cli.WithProfiles([]string{"*"}))
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	text, err := project.MarshalJSON()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(text)
	return err
}

func decode(in io.Reader) ([]any, error) {
	found, decoder := []any{}, yaml.NewDecoder(in)
	for {
		var document any
		if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, err
		}
		if document != nil {
			found = append(found, document)
		}
	}
}

func documents(in io.Reader) error {
	found, err := decode(in)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

type definition struct {
	Spec struct {
		Names    struct{ Kind string }
		Versions []struct {
			Name   string
			Schema struct {
				OpenAPI map[string]any `yaml:"openAPIV3Schema"`
			}
		}
	}
}

func schemas(folder string, files []string) error {
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var found definition
		if err := yaml.Unmarshal(text, &found); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, version := range found.Spec.Versions {
			schema := version.Schema.OpenAPI
			if schema == nil {
				return fmt.Errorf("%s: %s has no schema", file, version.Name)
			}
			closed(schema)
			// What the API server knows without being told.
			if properties, ok := schema["properties"].(map[string]any); ok {
				properties["metadata"] = map[string]any{"type": "object"}
			}
			encoded, err := json.Marshal(schema)
			if err != nil {
				return err
			}
			name := strings.ToLower(found.Spec.Names.Kind) + "_" + version.Name + ".json"
			if err := os.WriteFile(filepath.Join(folder, name), encoded, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// Objects that list their fields take no others: a misspelt one is found, not ignored.
func closed(schema map[string]any) {
	properties, listed := schema["properties"].(map[string]any)
	_, open := schema["additionalProperties"]
	if listed && !open && schema["x-kubernetes-preserve-unknown-fields"] != true {
		schema["additionalProperties"] = false
	}
	for _, inner := range properties {
		if inner, ok := inner.(map[string]any); ok {
			closed(inner)
		}
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if inner, ok := schema[key].(map[string]any); ok {
			closed(inner)
		}
	}
}
