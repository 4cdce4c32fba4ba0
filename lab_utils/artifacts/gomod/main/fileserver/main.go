// A file server for the labs: it lists and serves one folder, and says on its output what was asked of it.
package main

import (
	"flag"
	"log"
	"net/http"
	"os"
)

func main() {
	dir := flag.String("dir", "/data", "the folder to serve")
	listen := flag.String("listen", ":8080", "address and port")
	flag.Parse()
	log.SetOutput(os.Stdout)
	log.SetFlags(log.LstdFlags | log.LUTC)
	files := http.FileServer(http.Dir(*dir))
	log.Printf("serving %s on %s", *dir, *listen)
	log.Fatal(http.ListenAndServe(*listen, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s %s", r.RemoteAddr, r.Method, r.URL.Path)
		files.ServeHTTP(w, r)
	})))
}
