package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// atOnce is how many blobs a client gets at the same time, as docker and
// containerd do.
const atOnce = 3

// puller is a client of one server. Its connections stay open.
type puller struct {
	server      *server
	connections []*connection
}

func newPuller(ctx context.Context, s *server) (*puller, error) {
	p := &puller{server: s}
	return p, p.connect(ctx)
}

// connect opens the connections anew.
func (p *puller) connect(ctx context.Context) error {
	p.close()
	for range atOnce {
		c, err := dial(ctx, p.server.addr)
		if err != nil {
			return err
		}
		p.connections = append(p.connections, c)
	}
	return nil
}

func (p *puller) close() {
	for _, c := range p.connections {
		_ = c.Close()
	}
	p.connections = nil
}

// manifest gets the manifest of an image by its tag. It is hashed always.
func (p *puller) manifest(ctx context.Context, i image) error {
	return p.connections[0].get(ctx, p.server.manifest(i.Repository, tag), i.Manifest, true)
}

// pull pulls an image, and returns how long that took: the manifest by tag,
// then the config and the layers, in this order, three at a time.
func (p *puller) pull(ctx context.Context, i image, hashed bool) (time.Duration, error) {
	begun := time.Now()
	if err := p.manifest(ctx, i); err != nil {
		return 0, err
	}
	queue := make(chan part, 1+len(i.Layers))
	queue <- i.Config
	for _, layer := range i.Layers {
		queue <- layer
	}
	close(queue)
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range p.connections {
		group.Go(func() error {
			for b := range queue {
				if err := c.get(ctx, p.server.blob(i.Repository, b.Digest), b, hashed); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	return time.Since(begun), nil
}
