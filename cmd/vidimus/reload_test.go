package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const changedConfig = "version: 1\nupstreams: {docker.io: {}}\npolicies: [{match: docker.io/acme/changed, allow: unverified}]\n"

func TestChangesTakeEffectInTime(t *testing.T) {
	replace := func(t *testing.T, text string) {
		writeFile(t, "new.tmp", text)
		if err := os.Rename("new.tmp", "vidimus.yaml"); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(*testing.T, string){
		"a save in place":             func(t *testing.T, text string) { writeFile(t, "vidimus.yaml", text) },
		"a rename over it":            replace,
		"a removal and a new file":    func(t *testing.T, text string) { os.Remove("vidimus.yaml"); writeFile(t, "vidimus.yaml", text) },
		"an older file moved over it": func(t *testing.T, text string) { backdate(t, text); os.Rename("old", "vidimus.yaml") },
	} {
		t.Run(name, func(t *testing.T) {
			reload(t, nil, func(r *reloading) {
				before := r.Revision().ID
				change(r.T, changedConfig)
				r.pass(withinPromise)
				r.wantRevisions(1)
				r.wantMatches("docker.io/acme/changed")
				if r.Revision().ID == before {
					r.Error("the revision kept its id")
				}
			})
		})
	}
}

func backdate(t *testing.T, text string) {
	writeFile(t, "old", text)
	past := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := os.Chtimes("old", past, past); err != nil {
		t.Fatal(err)
	}
}

// TestSymbolicLinksSwapped is how Kubernetes updates a mounted ConfigMap.
func TestSymbolicLinksSwapped(t *testing.T) {
	inDirectory(t, map[string]string{"v1/vidimus.yaml": plainConfig, "v2/vidimus.yaml": changedConfig})
	for _, v := range []string{"v1", "v2"} {
		for _, key := range []string{"release.pub", "other.pub"} {
			writeFile(t, filepath.Join(v, key), mustReadFile(t, key))
		}
	}
	link(t, "v1", "..data")
	for _, name := range []string{"vidimus.yaml", "release.pub", "other.pub"} {
		os.Remove(name)
		link(t, "..data/"+name, name)
	}
	synctest.Test(t, func(t *testing.T) {
		r, err := openReloader(reloadConfig{From: fromFile("vidimus.yaml"), Lookup: lookupIn(nil)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer stop()
		var used []*revision
		go r.Run(ctx, func(next *revision) error { used = append(used, next); return nil })
		time.Sleep(4 * time.Second)
		link(t, "v2", "..data_tmp")
		if err := os.Rename("..data_tmp", "..data"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(withinPromise)
		synctest.Wait()
		if len(used) != 1 || names(used[0].loaded)[0] != "docker.io/acme/changed" {
			t.Errorf("%d revisions were put into effect after the swap, want the new one", len(used))
		}
	})
}

func link(t *testing.T, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}

// TestSaveThatKeepsSizeAndTimeIsSeen is what an attacker or a backup does.
func TestSaveThatKeepsSizeAndTimeIsSeen(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux's fingerprints have the time of the last change")
	}
	reload(t, nil, func(r *reloading) {
		info, err := os.Stat("vidimus.yaml")
		if err != nil {
			r.Fatal(err)
		}
		writeFile(r.T, "vidimus.yaml", strings.Replace(plainConfig, "docker.io/a/**", "docker.io/z/**", 1))
		if err := os.Chtimes("vidimus.yaml", info.ModTime(), info.ModTime()); err != nil {
			r.Fatal(err)
		}
		r.pass(withinPromise)
		r.wantMatches("docker.io/z/**", "docker.io/b/**")
	})
}

func TestIncludedFilesComeAndGo(t *testing.T) {
	files := map[string]string{
		"vidimus.yaml":      plainConfig + "include: [policies.d/*.yaml]\n",
		"policies.d/a.yaml": `{policies: [{match: docker.io/acme/c, allow: unverified}]}`,
	}
	reload(t, files, func(r *reloading) {
		r.wantMatches("docker.io/a/**", "docker.io/b/**", "docker.io/acme/c")
		writeFile(r.T, "policies.d/b.yaml", `{policies: [{match: docker.io/acme/d, deny: moved}]}`)
		r.pass(withinPromise)
		r.wantMatches("docker.io/a/**", "docker.io/b/**", "docker.io/acme/c", "docker.io/acme/d")
		os.Remove("policies.d/a.yaml")
		r.pass(withinPromise)
		r.wantMatches("docker.io/a/**", "docker.io/b/**", "docker.io/acme/d")
		r.wantRevisions(2)
	})
}

func TestReloadDoesNotWaitForALook(t *testing.T) {
	reload(t, nil, func(r *reloading) {
		writeFile(r.T, "vidimus.yaml", changedConfig)
		r.Reload()
		r.Reload()
		synctest.Wait()
		r.wantRevisions(1)
		r.wantMatches("docker.io/acme/changed")
	})
}

func TestTheSameContentChangesNothing(t *testing.T) {
	reload(t, nil, func(r *reloading) {
		writeFile(r.T, "vidimus.yaml", plainConfig)
		r.Reload()
		r.pass(time.Minute)
		r.wantRevisions(0)
	})
}

func TestHalfWrittenFileIsNotBelieved(t *testing.T) {
	whole := plainConfig + `revoked: ["sha256:` + strings.Repeat("a", 64) + "\"]\n"
	half := strings.TrimSuffix(plainConfig, "  - {match: \"docker.io/b/**\", require: other}\n")
	reload(t, nil, func(r *reloading) {
		writeFile(r.T, "vidimus.yaml", half) // holds, but is not what is meant
		r.pass(700 * time.Millisecond)
		writeFile(r.T, "vidimus.yaml", whole)
		r.pass(withinPromise)
		r.wantRevisions(1)
		if len(r.Revision().Revoked) != 1 {
			r.Error("what is revoked at the end of the file is not in effect")
		}
	})
}

func TestFileThatNeverRestsIsReadAnyway(t *testing.T) {
	reload(t, nil, func(r *reloading) {
		for i := range 4 {
			writeFile(r.T, "vidimus.yaml", changedConfig+strings.Repeat("#", i))
			r.pass(withinPromise / 4)
		}
		if len(r.revisions()) == 0 {
			r.Error("nothing took effect within two seconds")
		}
	})
}

func TestInvalidConfigurationChangesNothing(t *testing.T) {
	reload(t, nil, func(r *reloading) {
		metrics := newReloadMetrics(r.reloader)
		before := r.Revision()
		writeFile(r.T, "vidimus.yaml", "version: 1\nupstraems: {}\n")
		r.pass(time.Minute)
		r.wantRevisions(0)
		if r.Revision() != before {
			r.Error("the running revision was replaced")
		}
		status := r.Status()
		if status.Successful() || !strings.Contains(status.Fault, "vidimus.yaml:2: upstraems: is not a key that is known here; did you mean upstreams?") {
			r.Errorf("status says %q", status.Fault)
		}
		if n := strings.Count(r.log.String(), "upstraems"); n != 1 {
			r.Errorf("the faults were logged %d times, want once:\n%s", n, &r.log)
		}
		wantMetric(r, metrics, "vidimus_config_last_reload_successful", 0)

		writeFile(r.T, "vidimus.yaml", plainConfig)
		r.pass(withinPromise)
		r.wantRevisions(0)
		if status := r.Status(); !status.Successful() || status.Revision != before.ID {
			r.Errorf("the file is as it was, and the status says %+v", status)
		}
		wantMetric(r, metrics, "vidimus_config_last_reload_successful", 1)
	})
}

func TestConfigurationThatIsGoneChangesNothing(t *testing.T) {
	reload(t, nil, func(r *reloading) {
		os.Remove("vidimus.yaml")
		r.pass(withinPromise)
		r.wantRevisions(0)
		if status := r.Status(); !strings.Contains(status.Fault, "vidimus.yaml does not exist") {
			r.Errorf("status says %q", status.Fault)
		}
		writeFile(r.T, "vidimus.yaml", changedConfig)
		r.pass(withinPromise)
		r.wantRevisions(1)
	})
}

// TestInvalidConfigurationIsTriedAgain mends what no file shows.
func TestInvalidConfigurationIsTriedAgain(t *testing.T) {
	reload(t, nil, func(r *reloading) {
		writeFile(r.T, "vidimus.yaml", "version: 1\nupstreams: {docker.io: {username: joe, passwordEnv: LATER}}\n")
		r.pass(withinPromise + confirmAfter)
		r.wantRevisions(0)
		r.setEnv("LATER", "secret")
		r.pass(retryEvery)
		r.wantRevisions(1)
	})
}

func TestReadingIsConfirmedOnce(t *testing.T) {
	files := map[string]string{"vidimus.yaml": "version: 1\nupstreams: {docker.io: {username: joe, passwordEnv: TOKEN}}\n"}
	reload(t, files, func(r *reloading) {
		r.Reload()
		r.pass(time.Second)
		r.setEnv("TOKEN", "second") // as a write that no fingerprint shows
		r.pass(confirmAfter)
		r.wantRevisions(1)
		r.setEnv("TOKEN", "third")
		r.pass(time.Minute)
		r.wantRevisions(1)
	})
}

func TestRevisionThatIsRefusedIsTriedAgain(t *testing.T) {
	reload(t, nil, func(r *reloading) {
		r.setRefusal(errors.New("the proxy does not take it"))
		writeFile(r.T, "vidimus.yaml", changedConfig)
		r.pass(withinPromise)
		r.wantRevisions(0)
		if status := r.Status(); status.Fault != "the proxy does not take it" {
			r.Errorf("status says %q", status.Fault)
		}
		r.setRefusal(nil)
		r.pass(retryEvery)
		r.wantRevisions(1)
		r.wantMatches("docker.io/acme/changed")
	})
}

func TestConfigurationOnWhichSomethingPanicsChangesNothing(t *testing.T) {
	reload(t, nil, func(r *reloading) {
		r.setPanic(true)
		writeFile(r.T, "vidimus.yaml", strings.Replace(plainConfig, "{docker.io: {}}", "{docker.io: {}, ghcr.io: {}}", 1))
		r.pass(withinPromise)
		r.wantRevisions(0)
		if status := r.Status(); !strings.Contains(status.Fault, "panicked: a bug") {
			t.Errorf("status says %q", status.Fault)
		}
		r.setPanic(false)
		r.pass(retryEvery)
		r.wantRevisions(1)
	})
}

func TestSettingsThatNeedARestartAreNamed(t *testing.T) {
	reload(t, nil, func(r *reloading) {
		writeFile(r.T, "vidimus.yaml", plainConfig+"http: {addr: '127.0.0.1:5999'}\ncache: {directory: store}\n")
		r.pass(withinPromise)
		r.wantRevisions(1)
		if !strings.Contains(r.log.String(), `settings="http.addr, cache.directory"`) {
			r.Errorf("the log does not name the settings:\n%s", &r.log)
		}
	})
}

func TestFirstConfigurationMustHold(t *testing.T) {
	inDirectory(t, map[string]string{"vidimus.yaml": plainConfig})
	os.Remove("release.pub")
	_, err := openReloader(reloadConfig{From: fromFile("vidimus.yaml"), Lookup: lookupIn(nil)})
	if err == nil || !strings.Contains(err.Error(), "vidimus.yaml:4: authorities.release.keys[0]: release.pub does not exist") {
		t.Errorf("a key is missing at the first start, and the error is: %v", err)
	}
}
