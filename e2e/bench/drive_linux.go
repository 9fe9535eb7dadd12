package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	patience  = 30 * time.Second // without a byte on any connection
	epollWait = 100              // milliseconds
)

// ownGroup starts a process in a group of its own: a ^C is for us, who then end
// what was started.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// flushDisks writes out what waits for it.
func flushDisks() { syscall.Sync() }

// loop is one thread with its share of a load's connections. It does what wrk
// does: Go's network poller costs more for each request than nginx does.
type loop struct {
	load   *load
	epoll  int
	flows  []*flow
	buffer []byte
	open   int // flows with something to come
	stop   *atomic.Bool

	requests, bytes atomic.Int64
}

// flow is one connection of a loop.
type flow struct {
	fd     int
	head   []byte // of an answer, as far as it has come
	inBody bool
	left   int64 // of the body
	rest   int   // requests that are still to be sent; -1 is no end
	timing timing
}

// newLoop opens connections.
func newLoop(l *load, connections, requests int, stop *atomic.Bool) (_ *loop, err error) {
	o := &loop{load: l, buffer: make([]byte, readSize), stop: stop}
	if o.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	for i := range connections {
		f := &flow{rest: requests, fd: -1}
		o.flows = append(o.flows, f)
		if f.fd, err = connect(l.addr); err == nil {
			event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)} // data of ours: the index
			err = os.NewSyscallError("epoll_ctl", syscall.EpollCtl(o.epoll, syscall.EPOLL_CTL_ADD, f.fd, &event))
		}
		if err != nil {
			o.close()
			return nil, err
		}
	}
	return o, nil
}

func connect(addr string) (int, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return -1, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = os.NewSyscallError("connect", syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}))
	if err == nil {
		err = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1))
	}
	if err == nil {
		err = os.NewSyscallError("fcntl", syscall.SetNonblock(fd, true))
	}
	if err != nil {
		_ = syscall.Close(fd)
		return -1, fmt.Errorf("%s: %w", addr, err)
	}
	return fd, nil
}

func (o *loop) close() {
	for _, f := range o.flows {
		if f.fd >= 0 {
			_ = syscall.Close(f.fd)
		}
	}
	_ = syscall.Close(o.epoll)
}

// run sends each flow's requests and takes the answers, until there are no more
// to be sent or stop is set; then it takes the rest of those under way.
func (o *loop) run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, f := range o.flows {
		if err := o.send(f); err != nil {
			return err
		}
		o.open++
	}
	events := make([]syscall.EpollEvent, len(o.flows))
	last := time.Now()
	for o.open > 0 {
		n, err := syscall.EpollWait(o.epoll, events, epollWait)
		if err != nil && err != syscall.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		now := time.Now()
		if n <= 0 {
			if now.Sub(last) > patience {
				return fmt.Errorf("no byte came for %v", patience)
			}
			continue
		}
		last = now
		for _, event := range events[:n] {
			if err := o.read(o.flows[event.Fd], now); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *loop) send(f *flow) error {
	if f.rest > 0 {
		f.rest--
	}
	f.timing.sent = time.Now()
	n, err := syscall.Write(f.fd, o.load.request)
	if err == nil && n < len(o.load.request) {
		err = io.ErrShortWrite // of a few hundred bytes into an empty buffer
	}
	return os.NewSyscallError("write", err)
}

// read reads once what there is of an answer.
func (o *loop) read(f *flow, now time.Time) error {
	n, err := syscall.Read(f.fd, o.buffer)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return nil
	case err != nil:
		return os.NewSyscallError("read", err)
	case n == 0:
		return fmt.Errorf("the server closes the connection: %w", io.ErrUnexpectedEOF)
	}
	data := o.buffer[:n]
	if !f.inBody {
		if len(f.head) > 0 {
			data = append(f.head, data...)
		}
		size, err := o.begin(f, data, now)
		if err != nil {
			return err
		}
		if size == 0 {
			f.head = append(f.head[:0], data...)
			return nil
		}
		f.head = f.head[:0]
		data = data[size:]
	}
	return o.take(f, data, now)
}

// begin reads the head of an answer and returns its size; 0 when it is not
// complete.
func (o *loop) begin(f *flow, data []byte, now time.Time) (int, error) {
	h, size, err := parseHead(data)
	if err != nil || size == 0 {
		return 0, err
	}
	if h.status != 200 || h.length != o.load.want {
		return 0, fmt.Errorf("%w: status %d with %d bytes, want 200 with %d", errWrong, h.status, h.length, o.load.want)
	}
	if h.closes {
		return 0, errors.New("the server will close the connection, which was to be used again")
	}
	f.inBody, f.left, f.timing.first = true, h.length, now
	if o.load.headOnly {
		f.left = 0
	}
	return size, nil
}

// take takes bytes of a body, and goes on to the next request after its last.
func (o *loop) take(f *flow, data []byte, now time.Time) error {
	if int64(len(data)) > f.left {
		return fmt.Errorf("%w: bytes come after its end", errWrong)
	}
	f.left -= int64(len(data))
	o.bytes.Add(int64(len(data)))
	if f.left > 0 {
		return nil
	}
	o.requests.Add(1)
	f.inBody, f.timing.end = false, now
	if f.rest == 0 || o.stop.Load() {
		o.open--
		return nil
	}
	return o.send(f)
}
