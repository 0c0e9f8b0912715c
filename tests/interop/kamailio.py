"""Kamailio as registrar, proxy and presence server: digest over UDP, TCP, TLS, WS and WSS, all on loopback."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from .peers import free_port

MODULES = next((str(path) for path in Path("/usr/lib").glob("*/kamailio/modules") if path.is_dir()), "")
TABLES = Path("/usr/share/kamailio/dbtext/kamailio")

DOMAIN = "pbx.example"
USERS = {"alice": "wondrous", "bob": "zanzibar", "carol": "mocking-bird"}

CONFIG = """
debug=2
log_stderror=yes
fork=yes
children=1
tcp_children=2
server_signature=no
auto_aliases=no
alias="{domain}"
dns=no
rev_dns=no
enable_tls=yes
tcp_accept_no_cl=yes
tcp_connection_lifetime=3605
mpath="{modules}"
listen=udp:127.0.0.1:{port}
listen=tcp:127.0.0.1:{port}
listen=tls:127.0.0.1:{tls_port}
listen=tcp:127.0.0.1:{ws_port}
listen=tls:127.0.0.1:{wss_port}

loadmodule "kex.so"
loadmodule "corex.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
loadmodule "sanity.so"
loadmodule "auth.so"
loadmodule "htable.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "path.so"
loadmodule "stun.so"
loadmodule "outbound.so"
loadmodule "nathelper.so"
loadmodule "tls.so"
loadmodule "xhttp.so"
loadmodule "websocket.so"
loadmodule "db_text.so"
loadmodule "presence.so"
loadmodule "presence_xml.so"
loadmodule "presence_mwi.so"
loadmodule "presence_dialoginfo.so"

modparam("usrloc", "db_mode", 0)
modparam("registrar", "min_expires", 20)
modparam("registrar", "max_expires", 3600)
modparam("registrar", "gruu_enabled", {gruu})
modparam("registrar", "outbound_mode", 1)
modparam("registrar", "use_path", 1)
modparam("registrar", "received_avp", "$avp(RECEIVED)")
modparam("nathelper", "received_avp", "$avp(RECEIVED)")
modparam("rr", "enable_full_lr", 1)
modparam("auth", "nonce_expire", 60)
modparam("auth", "nonce_count", 1)
modparam("auth", "qop", "auth")
modparam("auth", "algorithm", "{algorithm}")
modparam("htable", "htable", "users=>size=4;")
modparam("tls", "config", "{folder}/tls.cfg")
modparam("websocket", "keepalive_mechanism", 0)
modparam("db_text", "db_mode", 0)
modparam("presence", "db_url", "text://{folder}/tables")
modparam("presence", "server_address", "sip:127.0.0.1:{port}")
modparam("presence", "subs_db_mode", 0)
modparam("presence", "publ_cache", 0)
modparam("presence", "min_expires", 20)
modparam("presence_xml", "db_url", "text://{folder}/tables")
modparam("presence_xml", "force_active", 1)

event_route[htable:mod-init] {{
{passwords}
}}

request_route {{
  force_rport();
  if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
  if (!sanity_check("1511", "7")) exit;
  if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
  if ($proto =~ "^ws" || is_method("REGISTER")) {{
    if (is_method("REGISTER")) fix_nated_register(); else add_contact_alias();
  }}
  if (has_totag()) {{
    if (loose_route()) {{
      handle_ruri_alias();
      if (uri =~ ";gr" && !lookup("location")) {{ t_newtran(); t_reply("404", "Not Found"); exit; }}
      if (is_method("NOTIFY|SUBSCRIBE")) record_route();
      t_on_reply("REPLY");
      t_relay();
      exit;
    }}
    if (is_method("SUBSCRIBE") && $rd == "127.0.0.1") {{ route(PRESENCE); exit; }}
    if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
    sl_send_reply("404", "Not here");
    exit;
  }}
  if (is_method("REGISTER")) {{
    if (!pv_www_authenticate("$td", "$sht(users=>$au)", "0")) {{ www_challenge("$td", "1"); exit; }}
    if ($au != $tU) {{ sl_send_reply("403", "Forbidden"); exit; }}
    save("location");
    exit;
  }}
  if (is_method("OPTIONS") && uri == myself && $rU == $null) {{ sl_send_reply("200", "OK"); exit; }}
  if (from_uri == myself) {{
    if (!pv_proxy_authenticate("$fd", "$sht(users=>$au)", "0")) {{ proxy_challenge("$fd", "1"); exit; }}
    consume_credentials();
  }}
  remove_hf("Route");
  if (is_method("PUBLISH") || (is_method("SUBSCRIBE") && $hdr(Event) =~ "presence|message-summary")) {{
    route(PRESENCE);
    exit;
  }}
  if (is_method("INVITE|SUBSCRIBE|REFER")) record_route();
  if (uri != myself) {{ t_relay(); exit; }}
  if (!lookup("location")) {{ t_newtran(); t_reply("404", "Not Found"); exit; }}
  handle_ruri_alias();
  t_on_reply("REPLY");
  t_relay();
}}

route[PRESENCE] {{
  if (!t_newtran()) {{ sl_reply_error(); exit; }}
  if (is_method("PUBLISH")) handle_publish(); else handle_subscribe();
  t_release();
}}

onreply_route[REPLY] {{
  if ($proto =~ "^ws") add_contact_alias();
}}

event_route[xhttp:request] {{
  set_reply_close();
  set_reply_no_connect();
  if ($hdr(Upgrade) =~ "websocket" && $rm =~ "GET") {{ if (ws_handle_handshake()) exit; }}
  xhttp_reply("404", "Not Found", "", "");
}}
"""

TLS = """
[server:default]
method = TLSv1.2+
verify_certificate = no
require_certificate = no
private_key = {key}
certificate = {certificate}

[client:default]
method = TLSv1.2+
verify_certificate = no
require_certificate = no
"""


def why_no_kamailio() -> str | None:
    """The reason why Kamailio cannot run here; None when it can."""
    if shutil.which("kamailio") is None or not MODULES:
        return "Kamailio is not installed (Debian: kamailio)"
    needed = {"tls": "kamailio-tls-modules", "websocket": "kamailio-websocket-modules"}
    needed |= {"presence": "kamailio-presence-modules", "outbound": "kamailio-outbound-modules"}
    missing = [package for module, package in needed.items() if not (Path(MODULES) / f"{module}.so").exists()]
    return f"Kamailio lacks {', '.join(missing)}" if missing else None


def certificate(folder: Path, domain: str) -> tuple[Path, Path, Path]:
    """An authority and a certificate of it for `domain` and 127.0.0.1: (authority, certificate, key)."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "san.cnf").write_text(
        f"subjectAltName=DNS:{domain},URI:sip:{domain},IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"
    )
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=sipwire test CA", "-days", "2")
    openssl("req", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", f"/CN={domain}")
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-out", "server.pem", "-days", "2", "-extfile", "san.cnf"),
    )
    return folder / "ca.pem", folder / "server.pem", folder / "server.key"


class Kamailio:
    """One Kamailio; `stop()` and `start()` again are a crash and a restart: what it knew is gone."""

    def __init__(self, folder: Path, *, algorithm: str = "MD5", gruu: bool = True) -> None:
        self.folder = folder
        self.port, self.tls_port, self.ws_port, self.wss_port = (free_port() for _ in range(4))
        self.ca, server, key = certificate(folder / "tls", DOMAIN)
        shutil.copytree(TABLES, folder / "tables", dirs_exist_ok=True)
        (folder / "tls.cfg").write_text(TLS.format(certificate=server, key=key))
        passwords = "\n".join(f'  $sht(users=>{user}) = "{password}";' for user, password in USERS.items())
        (folder / "kamailio.cfg").write_text(
            CONFIG.format(
                domain=DOMAIN,
                modules=MODULES,
                folder=folder,
                port=self.port,
                tls_port=self.tls_port,
                ws_port=self.ws_port,
                wss_port=self.wss_port,
                algorithm=algorithm,
                gruu=int(gruu),
                passwords=passwords,
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        run = self.folder / "run"
        run.mkdir(exist_ok=True)
        command = ["kamailio", "-DD", "-f", str(self.folder / "kamailio.cfg"), "-m", "64", "-M", "8"]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*command, "-Y", str(run), "-P", str(run / "pid")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.wss_port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError(f"Kamailio did not start:\n{self.log()}") from None
                threading.Event().wait(0.05)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is None:
            return
        children = subprocess.run(["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True).stdout
        self._process.send_signal(how)
        if how == signal.SIGKILL:
            subprocess.run(["kill", "-9", *children.split()], capture_output=True)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process = None

    def __enter__(self) -> Kamailio:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")
