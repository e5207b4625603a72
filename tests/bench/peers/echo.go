// Echo in Go: a goroutine for each connection, one for the datagrams.
package main

import (
	"io"
	"log"
	"net"
	"os"
)

func serve(c net.Conn) {
	defer c.Close()
	// Plain readers and writers: between two bare sockets io.Copy would splice, which is slower here.
	io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 16384))
}

func datagrams(p net.PacketConn) {
	buffer := make([]byte, 65536)
	for {
		if n, from, err := p.ReadFrom(buffer); err == nil {
			p.WriteTo(buffer[:n], from)
		}
	}
}

func main() {
	where := "127.0.0.1:" + os.Args[1]
	p, err := net.ListenPacket("udp", where)
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", where)
	if err != nil {
		log.Fatal(err)
	}
	go datagrams(p)
	for {
		if c, err := l.Accept(); err == nil {
			go serve(c)
		}
	}
}
