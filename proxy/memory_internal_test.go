package proxy

import (
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"vidimus/policy"
)

// held returns by how much the heap has grown when fill has run and what it
// returns is alive.
func held(fill func() any) int {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	kept := fill()
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(kept)
	return int(after.HeapAlloc) - int(before.HeapAlloc)
}

// What bounds memory must count what is there.
func TestWhatIsCountedIsWhatIsHeld(t *testing.T) {
	hash := func(i int) string { return digestOf(fmt.Append(nil, i)).String() }
	descriptor := func(i int, more string) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"%s","size":%d%s}`, hash(i), 1000+i, more)
	}
	image := func(i, layers int, more func(i int) string) []byte {
		var list []string
		for n := range layers {
			list = append(list, descriptor(i*1000+n+1, more(n)))
		}
		return fmt.Appendf(nil, `{"schemaVersion":2,"config":%s,"layers":[%s]}`, descriptor(i*1000, ""), strings.Join(list, ","))
	}
	manifests := func(n int, make func(i int) []byte) func(t *testing.T) (counted func() int, fill func() any) {
		return func(t *testing.T) (func() int, func() any) {
			c := &manifestCache{newMemory(1<<30, newManifestCache().cost)}
			return func() int { return c.bytes }, func() any {
				for i := range n {
					m, err := parseManifest(make(i), "")
					if err != nil {
						t.Fatal(err)
					}
					c.add(m)
				}
				return c
			}
		}
	}
	name := func(i int) string { return fmt.Sprintf("registry.example.com/team-%d/application", i) }
	now := time.Now()
	r := newMemories()
	for kind, begin := range map[string]func(t *testing.T) (counted func() int, fill func() any){
		"manifests of a layer":  manifests(2000, func(i int) []byte { return image(i, 1, func(int) string { return "" }) }),
		"manifests of 8 layers": manifests(1000, func(i int) []byte { return image(i, 8, func(int) string { return "" }) }),
		"manifests with an annotation": manifests(500, func(i int) []byte {
			return image(i, 8, func(int) string { return `,"annotations":{"org.opencontainers.image.title":"a title"}` })
		}),
		"manifests with annotations of nothing": manifests(100, func(i int) []byte {
			return image(i, 4, func(int) string {
				var pairs []string
				for n := range 500 {
					pairs = append(pairs, fmt.Sprintf(`"%d":""`, n))
				}
				return `,"annotations":{` + strings.Join(pairs, ",") + "}"
			})
		}),
		"manifests with URLs of nothing": manifests(100, func(i int) []byte {
			return image(i, 4, func(int) string { return `,"urls":["x"` + strings.Repeat(`,""`, 500) + "]" })
		}),
		"manifests with data": manifests(100, func(i int) []byte {
			data := base64.StdEncoding.EncodeToString(make([]byte, 3000))
			return image(i, 4, func(int) string { return `,"data":"` + data + `"` })
		}),
		"indexes": manifests(500, func(i int) []byte {
			var list []string
			for n := range 10 {
				list = append(list, descriptor(i*1000+n, fmt.Sprintf(`,"platform":{"architecture":"arm%d","os":"linux","variant":"v%d"}`, n, n)))
			}
			return fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[%s]}`, strings.Join(list, ","))
		}),
		"decisions": func(*testing.T) (func() int, func() any) {
			c := newDecisionCacheOf(1 << 30)
			return func() int { return c.bytes }, func() any {
				for i := range 5000 {
					digest := digestOf(fmt.Append(nil, i))
					c.add(decisionKey{repository: name(i), digest: digest}, policy.Decision{
						ID: policy.NewID(), Allowed: true, Explained: strings.Clone("signed by release"), Satisfied: []string{strings.Clone("release")},
						Subject: policy.Subject{Repository: name(i), Digest: digest, Aliases: []string{name(i + 1)}},
					}, now)
				}
				return c
			}
		},
		"answers": func(*testing.T) (func() int, func() any) {
			c := &answers{memory: newMemory(1<<30, r.answers.cost)}
			return func() int { return c.bytes }, func() any {
				for i := range 5000 {
					a := &answer{name: name(i), digest: digestOf(nil), id: []string{"id"}}
					c.add(answerKey{placeOf(a.name), fmt.Sprint("v", i)}, a)
				}
				return c
			}
		},
		"edges": func(*testing.T) (func() int, func() any) {
			c := newMemory(1<<30, r.edges.cost)
			return func() int { return c.bytes }, func() any {
				for i := range 5000 {
					e := &edge{}
					e.desc.Digest = digestOf(fmt.Append(nil, i))
					c.add(edgeKey{name(i), e.desc.Digest}, e)
				}
				return c
			}
		},
		"references on record": func(*testing.T) (func() int, func() any) {
			c := newMemory(1<<30, r.noted.cost)
			return func() int { return c.bytes }, func() any {
				for i := range 5000 {
					c.add(notedKey{"id", fmt.Sprint("v", i)}, struct{}{})
				}
				return c
			}
		},
		"proofs": func(*testing.T) (func() int, func() any) {
			c := newMemory(1<<30, r.proofs.cost)
			return func() int { return c.bytes }, func() any {
				for i := range 5000 {
					c.add(proofKey{name(i), digestOf(fmt.Append(nil, "m", i)), digestOf(fmt.Append(nil, "e", i))}, digestOf(fmt.Append(nil, "p", i)))
				}
				return c
			}
		},
	} {
		t.Run(kind, func(t *testing.T) {
			counted, fill := begin(t)
			real := held(fill)
			t.Logf("counted %d, held %d", counted(), real)
			if real > counted()*11/10 || counted() > real*2 {
				t.Errorf("counted %d bytes, held are %d", counted(), real)
			}
		})
	}
}
