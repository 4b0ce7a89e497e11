"""The origins of the edge suite: what may stand before an orchestrator, each as TLS HTTP/1.1.

nginx, HAProxy and Apache pass everything to a recorder; Python's http.server records itself.
A flood needs an origin that no flood slows down: nginx, answering by itself.
"""

import http.server
import pathlib
import shutil
import ssl

from nodes import certificate, free_ports
from recorder import Recorder, Seen, discovery, is_check

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;
events {{ worker_connections 256; }}
http {{
    access_log off; client_max_body_size 64m; large_client_header_buffers 8 64k;
    client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-f; uwsgi_temp_path {folder}/nginx-u; scgi_temp_path {folder}/nginx-s;
    server {{
        listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key};
        location / {{
            proxy_pass http://127.0.0.1:{backend}; proxy_http_version 1.1;
            proxy_set_header Connection ""; proxy_set_header Host $http_host;
        }}
    }}
}}
"""

PLAIN = """
daemon off; master_process off; pid {folder}/plain.pid; error_log {folder}/plain-error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; client_body_temp_path {folder}/plain-body; proxy_temp_path {folder}/plain-proxy;
    fastcgi_temp_path {folder}/plain-f; uwsgi_temp_path {folder}/plain-u; scgi_temp_path {folder}/plain-s;
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096; ssl_certificate {cert}; ssl_certificate_key {key};
        ssl_session_cache shared:plain:1m;
        location = /discovery {{ return 200 '{list}'; }}
        location / {{ return 200 "served"; }}
    }}
}}
"""

HAPROXY = """
global
    tune.bufsize 131072
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
frontend edge
    bind 127.0.0.1:{port} ssl crt {folder}/haproxy.both alpn http/1.1
    default_backend recorder
backend recorder
    server recorder 127.0.0.1:{backend}
"""

APACHE = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/apache.pid
DefaultRuntimeDir {folder}
ErrorLog {folder}/apache-error.log
Mutex file:{folder} default
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule ssl_module {modules}/mod_ssl.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
LoadModule socache_shmcb_module {modules}/mod_socache_shmcb.so
LoadModule authz_core_module {modules}/mod_authz_core.so
Listen 127.0.0.1:{port}
Protocols http/1.1
KeepAliveTimeout 60
MaxKeepAliveRequests 0
LimitRequestFieldSize 65536
LimitRequestLine 16384
SSLEngine on
SSLCertificateFile {cert}
SSLCertificateKeyFile {key}
AllowEncodedSlashes NoDecode
ProxyAddHeaders Off
ProxyPreserveHost On
ProxyPass / http://127.0.0.1:{backend}/ nocanon
"""

APACHE_MODULES = "/usr/lib/apache2/modules"


class Direct(http.server.BaseHTTPRequestHandler):
    """Python's own server, which reads no chunks by itself."""

    protocol_version = "HTTP/1.1"

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def serve(self):
        fields = [(name.lower(), value) for name, value in self.headers.items()]
        seen = Seen(self.command, self.path, fields, "", whole=False)
        try:
            seen.body = self.body(seen).decode("latin-1")
            seen.whole = True
        except (EOFError, ValueError):
            self.close_connection = True
        if not is_check(seen.method, seen.target):
            self.server.record.note(seen)
        if seen.whole:
            answer = self.server.answer_to(seen)
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if seen.method != "HEAD":
                self.wfile.write(answer)

    def body(self, seen):
        if seen.values("transfer-encoding"):
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.some(size)
                self.some(2)
            while self.rfile.readline().strip():
                pass
            return data
        return self.some(int((seen.values("content-length") or ["0"])[0]))

    def some(self, size):
        data = self.rfile.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def log_message(self, *_):
        pass


class DirectServer(Recorder):
    """A recorder that is an origin itself; handshakes are made by each connection's thread."""

    def __init__(self, port, origin, cert, key):
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(cert, key)
        self.tls.set_alpn_protocols(["http/1.1"])
        super().__init__(port, origin, Direct)

    def finish_request(self, request, client_address):
        request.settimeout(60)
        with self.tls.wrap_socket(request, server_side=True) as request:
            super().finish_request(request, client_address)


def commands(name, folder):
    """Returns how a proxy is started, or nothing where it is not installed."""
    nginx, haproxy, apache = map(shutil.which, ("nginx", "haproxy", "apache2"))
    return {
        "nginx": nginx and (nginx, "-p", folder, "-c", folder / "nginx.conf"),
        "haproxy": haproxy and (haproxy, "-db", "-f", folder / "haproxy.conf"),
        "apache": apache and (apache, "-DFOREGROUND", "-f", folder / "apache.conf"),
    }[name]


def start(name, processes):
    """Starts an origin; returns its URL and its recorder, or nothing where it is missing."""
    folder = pathlib.Path(processes.folder)
    cert, key = certificate(folder, name)
    port, backend = free_ports(2)
    origin = f"https://127.0.0.1:{port}"
    if name == "python":
        return origin, DirectServer(port, origin, cert, key)
    command = commands(name, folder)
    if not command:
        return None
    (folder / f"{name}.both").write_text(cert.read_text() + key.read_text())
    text = {"nginx": NGINX, "haproxy": HAPROXY, "apache": APACHE}[name].format(
        folder=folder, port=port, backend=backend, cert=cert, key=key, modules=APACHE_MODULES
    )
    (folder / f"{name}.conf").write_text(text)
    recorder = Recorder(backend, origin)
    processes.start(name, *map(str, command))
    return origin, recorder


def start_plain(processes):
    """Starts an origin that answers by itself; returns its URL, or nothing without nginx."""
    folder, nginx = pathlib.Path(processes.folder), shutil.which("nginx")
    if not nginx:
        return None
    cert, key = certificate(folder, "plain")
    (port,) = free_ports(1)
    origin = f"https://127.0.0.1:{port}"
    text = PLAIN.format(
        folder=folder, port=port, cert=cert, key=key, list=discovery(origin).decode()
    )
    (folder / "plain.conf").write_text(text)
    processes.start("plain", nginx, "-p", str(folder), "-c", str(folder / "plain.conf"))
    return origin


NAMES = ["nginx", "haproxy", "apache", "python"]
