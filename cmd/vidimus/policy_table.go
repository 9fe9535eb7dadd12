package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"vidimus/policy"
)

// expectation is one row of a table of policy test.
type expectation struct {
	pos
	Name   string
	Image  string
	Expect string // allowed, denied, inconclusive; empty: only the policy is looked at
	Reason string // of a denial; empty: any
	Policy string // which one decides; empty: any
}

// called is what the row goes by.
func (e expectation) called() string {
	if e.Name != "" {
		return e.Name
	}
	return e.Image
}

// expectationsShape is a table.
func expectationsShape() shape[[]expectation] {
	return some(object([]field[expectation]{
		key("name", `""`, plainText(), func(e *expectation) *string { return &e.Name }, "what the row goes by; the image without one"),
		required(key("image", "", checked("write it with its registry, like ghcr.io/acme/web:v1", checkImage),
			func(e *expectation) *string { return &e.Image }, "the image, with its registry")),
		key("expect", "", oneOf([]choice[string]{{"allowed", "allowed"}, {"denied", "denied"}, {"inconclusive", "inconclusive"}}),
			func(e *expectation) *string { return &e.Expect }, "what is decided about it"),
		key("reason", "", oneOf(reasonChoices()), func(e *expectation) *string { return &e.Reason }, "why it is denied"),
		key("policy", "", nonEmpty("name a policy"), func(e *expectation) *string { return &e.Policy }, "the name of the policy that decides"),
	}), "write what is expected of which image, like - {image: ghcr.io/acme/web:v1, expect: allowed}")
}

func reasonChoices() []choice[string] {
	var all []choice[string]
	for _, reason := range decisionWords()[3:] { // the first are decisions
		all = append(all, choice[string]{reason, reason})
	}
	return all
}

func checkImage(image string) error {
	if _, ok := repositoryOf(image); !ok {
		return fmt.Errorf("%s is not the name of an image", quote(image))
	}
	return nil
}

// repositoryOf is the canonical repository of an image, whose name begins with that of
// an upstream, as explain takes it.
func repositoryOf(image string) (string, bool) {
	repository, _, _ := strings.Cut(image, "@")
	if colon := strings.LastIndexByte(repository, ':'); colon > strings.LastIndexByte(repository, '/') {
		repository = repository[:colon]
	}
	return policy.Canonical(repository)
}

// readExpectations reads a table. An error says all that is wrong with it.
func readExpectations(file string) ([]expectation, error) {
	data, err := readRegular(file, maxConfigFile)
	if err != nil {
		return nil, errors.New(plainError(err))
	}
	rows, found := decodeFile(file, data, expectationsShape())
	var names []string
	for _, row := range rows {
		switch {
		case row.Expect == "" && row.Policy == "" && !found.inside(row.pos):
			found.add(row.fault("expects nothing", "write expect: allowed, denied or inconclusive, or policy: NAME"))
		case row.Reason != "" && row.Expect != "denied":
			found.add(row.fault("has a reason, which only a denial has", "write expect: denied, or remove it"))
		}
		if row.Name != "" && slices.Contains(names, row.Name) {
			found.add(row.fault("is called "+quote(row.Name)+" as another row is", "give one of them another name"))
		}
		names = append(names, row.Name)
	}
	if err := found.sorted().err(); err != nil {
		return nil, errors.New(strings.Replace(err.Error(), "in the configuration", "in the table", 1))
	}
	return rows, nil
}
