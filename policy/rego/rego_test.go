package rego

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

const input = `{
	"image": {"repository": "ghcr.io/acme/web", "digest": "sha256:00", "tag": "v1"},
	"signatures": [{"form": "bundle-dsse", "digest": "sha256:01", "authorities": ["release"], "keyIDs": ["3f"], "claimedName": "", "annotations": {"env": "prod"}, "counted": true}],
	"attestations": [{"digest": "sha256:02", "authorities": ["ci"], "keyIDs": ["4a"], "predicateType": "https://slsa.dev/provenance/v1", "predicate": {"a": {"b": [1, 2]}}}]
}`

func compile(t *testing.T, input Input, source string) *Module {
	t.Helper()
	m, err := Compile("policy.rego", []byte(source), input)
	if err != nil {
		t.Fatalf("%v\n%s", err, source)
	}
	return m
}

func TestAModuleSaysNoUnlessItSaysYes(t *testing.T) {
	for _, tt := range []struct {
		name, rules string
		want        string // the reasons, joined by |
	}{
		{"deny that holds nothing", `deny contains "no" if input.image.tag == "latest"`, ""},
		{"deny that holds a message", `deny contains "no latest" if input.image.tag == "v1"`, "no latest"},
		{"several messages, in their order", "deny contains \"b\"\ndeny contains \"a\"", "a|b"},
		{"a message that is no text", `deny contains {"why": 1}`, `{"why": 1}`},
		{"a message that is empty", `deny contains ""`, ""},
		{"many messages", `deny contains sprintf("%d", [x]) if some x in [10,11,12,13,14,15,16,17,18,19]`, "10|11|12|13|14|15|16|17|and 2 more"},
		{"allow", `allow if input.image.repository == "ghcr.io/acme/web"`, ""},
		{"allow that is undefined", `allow if input.image.repository == "other"`, "allow is undefined"},
		{"allow that is false", `allow := input.image.repository == "other"`, "allow is false"},
		{"allow that is false by default", "default allow := false", "allow is false"},
		{"allow that is no boolean", `allow := "yes"`, "allow is neither true nor false"},
		{"allow that is null", `allow := null`, "allow is neither true nor false"},
		{"allow that contradicts itself", "allow := true\nallow := false if input.image", "evaluating it failed: line 3: rule data.vidimus.allow produced conflicting values: true at policy.rego:2 false at policy.rego:3"},
		{"both, and both say yes", "allow := true\ndeny contains \"no\" if input.image.tag == \"v2\"", ""},
		{"both, and deny says no", "allow := true\ndeny contains \"no\"", "no"},
		{"both, and allow says no", "allow := false\ndeny contains \"no\" if false", "allow is false"},
		{"a function that cannot take its argument", `allow if to_number(input.image.tag) > 0`, `evaluating it failed: line 2: to_number: strconv.ParseFloat: parsing "v1": invalid syntax`},
		{"a division by zero", `deny contains "x" if 1 / count([x | some x in input.signatures; x.form == "none"]) == 1`, "evaluating it failed: line 2: div: divide by zero"},
		{"a predicate's inside", `allow if { some a in input.attestations; a.predicate.a.b[1] == 2 }`, ""},
		{"signed annotations", `allow if input.signatures[0].annotations.env == "prod"`, ""},
		{"a template", `deny contains $"tag {input.image.tag}"`, "tag v1"},
		{"print says nothing", `allow if { print("x", input); true }`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := compile(t, Image, "package vidimus\n"+tt.rules)
			reasons, err := m.Judge(t.Context(), []byte(input))
			denied := len(reasons) > 0
			if got := strings.Join(reasons, "|"); err != nil || got != tt.want || denied != (tt.want != "" || tt.name == "a message that is empty") {
				t.Errorf("%q, %v\nwant %q", reasons, err, tt.want)
			}
		})
	}
}

func TestWhatCouldNotBeMeantDoesNotCompile(t *testing.T) {
	for _, tt := range []struct{ name, source, want string }{
		{"nothing", "", "is empty: write package vidimus"},
		{"no rule that answers", "package vidimus\nviolation contains 1", "defines neither deny nor allow"},
		{"another package", "package main\nallow := true", "line 1: is package main: write package vidimus"},
		{"a package below", "package vidimus.web\nallow := true", "line 1: is package vidimus.web"},
		{"deny that is a boolean", "package vidimus\n\ndeny if input.image", "line 3: defines deny as something else than a set of messages"},
		{"deny that is a list", "package vidimus\ndeny := []", "line 2: defines deny as something else"},
		{"deny that is an object", "package vidimus\ndeny.x := 1", "line 2: defines deny as something else"},
		{"deny in the old syntax", "package vidimus\ndeny[msg] { msg := \"x\" }", "write it in Rego v1"},
		{"allow that is a set", "package vidimus\nallow contains 1", "line 2: defines allow as something else"},
		{"allow that is a function", "package vidimus\nallow(x) := true", "line 2: defines allow as something else"},
		{"a mistake in the syntax", "package vidimus\nallow if {", "line 2: "},
		{"a field that no input has", "package vidimus\nallow if input.atestations", `line 2: reads input.atestations, which the input does not have: there it has ["attestations", "image", "signatures"]`},
		{"a field that no image has", "package vidimus\nallow if input.image.name", "line 2: reads input.image.name"},
		{"a field that no signature has", "package vidimus\nallow if input.signatures[_].keyID", `line 2: reads input.signatures[_].keyID`},
		{"data", "package vidimus\nallow if data.settings.x", "line 2: reads data.settings.x: there is no data"},
		{"all data", "package vidimus\nallow if count(data) > 0", "recursive"},
		{"recursion", "package vidimus\nallow if not allow", "recursive"},
		{"a rule that is not there", "package vidimus\nallow if missing", "missing"},
		{"the network", "package vidimus\nallow if http.send({\"method\": \"GET\", \"url\": \"http://127.0.0.1/\"}).status_code == 200", "line 2: calls http.send, which is not there: a rule computes with its input"},
		{"names of hosts", "package vidimus\nallow if net.lookup_ip_addr(\"localhost\")", "calls net.lookup_ip_addr"},
		{"the environment", "package vidimus\nallow if opa.runtime().env.HOME", "calls opa.runtime"},
		{"the clock", "package vidimus\nallow if time.now_ns() > 0", "calls time.now_ns"},
		{"chance", "package vidimus\nallow if rand.intn(\"x\", 2) == 1", "calls rand.intn"},
		{"unique names", "package vidimus\nallow if uuid.rfc4122(\"x\")", "calls uuid.rfc4122"},
		{"schemas, which may be remote", "package vidimus\nallow if json.match_schema({}, {})[0]", "calls json.match_schema"},
		{"time zones, which are files", "package vidimus\nallow if time.weekday([0, \"Europe/Berlin\"]) == \"Monday\"", "calls time.weekday"},
		{"a hidden call", "package vidimus\nallow if count([1]) == 1 with count as http.send", "var http is unsafe"},
		{"a large file", "package vidimus\nallow := true\n#" + strings.Repeat("x", MaxSource), "has more than 1048576 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile("policy.rego", []byte(tt.source), Image)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v\nwant %s", err, tt.want)
			}
			if _, ok := errors.AsType[*Fault](err); !ok {
				t.Errorf("%T is no fault", err)
			}
		})
	}
	t.Run("each fault is told", func(t *testing.T) {
		_, err := Compile("policy.rego", []byte("package vidimus\nallow if http.send({})\ndeny contains 1 if time.now_ns() > 1"), Image)
		if err == nil || strings.Count(err.Error(), "which is not there") != 2 {
			t.Error(err)
		}
	})
}

// Nothing that OPA will have in a version to come is here without being looked at.
func TestOnlyFunctionsOfTheListAreThere(t *testing.T) {
	there := capabilities()
	if len(there.Builtins) != len(functions) {
		t.Errorf("%d functions are there, %d are listed: one of the list is not OPA's", len(there.Builtins), len(functions))
	}
	for _, f := range there.Builtins {
		if f.IsNondeterministic() {
			t.Errorf("%s may answer otherwise each time", f.Name)
		}
	}
	if there.AllowNet == nil || len(there.AllowNet) > 0 {
		t.Errorf("schemas may be fetched from %v", there.AllowNet)
	}
}

func TestAnEvaluationEnds(t *testing.T) {
	const squared = `package vidimus
numbers := [x | some a in digits; some b in digits; some c in digits; x := a + 10 * b + 100 * c]
digits := [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
deny contains "found" if { some a in numbers; some b in numbers; some c in numbers; a * b * c == -1 }
`
	for _, tt := range []struct{ name, source string }{
		{"a search through a thousand million", squared},
		{"a set of as many", strings.NewReplacer("deny contains \"found\"", "found contains [a, b, c]", "; a * b * c == -1", "").Replace(squared) + "deny contains \"x\" if count(found) > 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := compile(t, Image, tt.source)
			begun := time.Now()
			reasons, err := m.Judge(t.Context(), []byte(input))
			if err != nil || len(reasons) != 1 || reasons[0] != tooLong {
				t.Errorf("%q, %v", reasons, err)
			}
			if took := time.Since(begun); took > 10*Timeout {
				t.Errorf("it took %v", took)
			}
			for range cap(m.slots) {
				select {
				case m.slots <- struct{}{}:
				case <-time.After(10 * time.Second):
					t.Fatal("it is still evaluated, and keeps its place")
				}
			}
		})
	}
	t.Run("when nobody waits, nobody can tell", func(t *testing.T) {
		m := compile(t, Image, squared)
		ctx, cancel := context.WithTimeout(t.Context(), Timeout/10)
		defer cancel()
		if reasons, err := m.Judge(ctx, []byte(input)); !errors.Is(err, context.DeadlineExceeded) || reasons != nil {
			t.Errorf("%q, %v", reasons, err)
		}
	})
	t.Run("while all places are taken, nobody can tell", func(t *testing.T) {
		m := compile(t, Image, "package vidimus\nallow := true")
		for range cap(m.slots) {
			m.slots <- struct{}{}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if reasons, err := m.Judge(ctx, []byte(input)); !errors.Is(err, context.Canceled) || reasons != nil {
			t.Errorf("%q, %v", reasons, err)
		}
	})
}

func TestAModuleIsEvaluatedByManyAtOnce(t *testing.T) {
	m := compile(t, Image, "package vidimus\nallow if startswith(input.image.repository, \"ghcr.io/\")")
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			repository, want := "ghcr.io/a", 0
			if i%2 == 0 {
				repository, want = "docker.io/a", 1
			}
			document := fmt.Appendf(nil, `{"image": {"repository": %q}}`, repository)
			if reasons, err := m.Judge(t.Context(), document); err != nil || len(reasons) != want {
				t.Errorf("%s: %q, %v", repository, reasons, err)
			}
		})
	}
	all.Wait()
}

func TestWhetherAModuleReadsTheTag(t *testing.T) {
	for rules, want := range map[string]bool{
		`allow if input.image.tag == "v1"`:                           true,
		`allow if input.image["tag"]`:                                true,
		`allow if { some k; input.image[k] == "v1" }`:                true,
		`allow if input[_].tag`:                                      true,
		`allow if count(input) > 0`:                                  true,
		`allow if count(input.image) > 0`:                            true,
		`allow if { x := input; x.image.tag }`:                       true,
		"import input.image as i\nallow if i.tag":                    true,
		`allow if walk(input, [_, "v1"])`:                            true,
		`allow if input.image.repository`:                            false,
		`allow if { some s in input.signatures; s.annotations.tag }`: false,
		`allow if input.image.digest == "sha256:tag"`:                false,
		"import input.image as i\nallow if i.digest":                 false,
		`allow := true`:                                              false,
	} {
		if m := compile(t, Image, "package vidimus\n"+rules); m.ReadsTag() != want {
			t.Errorf("%s\nreads the tag: %v", rules, m.ReadsTag())
		}
	}
}

func TestAModuleAboutOneAttestationSeesThatAlone(t *testing.T) {
	m := compile(t, Predicate, "package vidimus\nallow if { input.predicate.builder.id == \"x\"; input.predicateType; input.authorities[0]; input.image.digest }")
	if reasons, err := m.Judge(t.Context(), []byte(`{"predicate": {"builder": {"id": "x"}}, "predicateType": "p", "authorities": ["ci"], "image": {"digest": "d"}}`)); err != nil || reasons != nil {
		t.Errorf("%q, %v", reasons, err)
	}
	if _, err := Compile("p.rego", []byte("package vidimus\nallow if input.attestations"), Predicate); err == nil {
		t.Error("it reads all attestations")
	}
}

func TestModulesInTheFormOfCosign(t *testing.T) {
	const statement = `{"predicateType": "https://slsa.dev/provenance/v1", "predicate": {"x": 1}}`
	for _, source := range []string{
		"package signature\ndefault allow = false\nallow {\n input.predicateType == \"https://slsa.dev/provenance/v1\"\n}",
		"package signature\nallow if input.predicate.x == 1",
	} {
		m := compile(t, Statement, source)
		if reasons, err := m.Judge(t.Context(), []byte(statement)); err != nil || reasons != nil {
			t.Errorf("%q, %v\n%s", reasons, err, source)
		}
		if reasons, err := m.Judge(t.Context(), []byte(`{}`)); err != nil || len(reasons) != 1 {
			t.Errorf("%q, %v\n%s", reasons, err, source)
		}
	}
	for _, source := range []string{
		"package vidimus\nallow := true", "package signature\ndeny contains \"x\"",
		"package signature\nallow { http.send({}) }", "package signature\nallow { time.now_ns() > 0 }",
	} {
		if _, err := Compile("p.rego", []byte(source), Statement); err == nil {
			t.Errorf("compiled: %s", source)
		}
	}
}
