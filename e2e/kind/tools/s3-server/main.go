// An S3 server for tests: folders below -root are buckets, and one account may do everything.
//
// Versity's gateway as a library. Its own command also has backends for clouds, and all its tests, and takes several
// times as long to build.
package main

import (
	"context"
	"flag"
	"log"
	"os/signal"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	root := flag.String("root", "", "folder with the buckets")
	metadata := flag.String("metadata", "", "folder for what file systems cannot keep beside files")
	config := embedgw.Config{MaxConnections: 100, MaxRequests: 100, MultipartMaxParts: 10000, Quiet: true}
	flag.StringVar(&config.RootUserAccess, "access", "", "access key id of the account")
	flag.StringVar(&config.RootUserSecret, "secret", "", "its secret access key")
	flag.StringVar(&config.Region, "region", "us-east-1", "region")
	flag.StringVar(&config.VirtualDomain, "domain", "", "domain below which each bucket is a host")
	flag.StringVar(&config.CertFile, "cert", "", "file with the certificate, in PEM")
	flag.StringVar(&config.KeyFile, "key", "", "file with the key of the certificate, in PEM")
	flag.Func("listen", "host:port", func(value string) error {
		config.Ports = []string{value}
		return nil
	})
	flag.Parse()

	store, err := meta.NewSideCar(*metadata)
	if err != nil {
		log.Fatal(err)
	}
	files, err := posix.New(*root, store, posix.PosixOpts{SideCarDir: *metadata})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := embedgw.RunVersityGW(ctx, files, &config); err != nil {
		log.Fatal(err)
	}
}
