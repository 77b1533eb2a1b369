//! nginx: its configuration, a file to serve, and a certificate.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use super::{Launch, Server, TemporaryFolder, run};
use crate::installed;

/// An nginx server.
///
/// | path | answer |
/// |---|---|
/// | `/echo?text` | `text` |
/// | `/file` | [`Nginx::file`] |
/// | `/held` | what the test at the other end of `held` answers |
pub struct Nginx {
    server: Server,
    is_tls: bool,
}

impl Nginx {
    /// Starts one that speaks HTTP, if it is installed.
    ///
    /// # Panics
    ///
    /// If it is installed and does not start.
    pub fn start(held: SocketAddr) -> Option<Self> {
        let program = installed("nginx", &["/usr/sbin".into()])?;
        let folder = TemporaryFolder::new();
        Some(Self::launch(folder, program, held, false))
    }

    /// Starts one that speaks HTTP over TLS, with a certificate of its own, if
    /// that is possible here.
    ///
    /// # Panics
    ///
    /// If it is installed and does not start.
    pub fn start_tls(held: SocketAddr) -> Option<Self> {
        let program = installed("nginx", &["/usr/sbin".into()])?;
        let openssl = installed("openssl", &[])?;
        let folder = TemporaryFolder::new();
        run(Command::new(openssl)
            .args(["req", "-x509", "-nodes", "-days", "2"])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-subj", "/CN=localhost", "-addext"])
            .args(["subjectAltName=IP:127.0.0.1", "-addext"])
            .args(["basicConstraints=critical,CA:FALSE", "-keyout", "key.pem"])
            .args(["-out", "certificate.pem"])
            .current_dir(folder.path()));
        Some(Self::launch(folder, program, held, true))
    }

    fn launch(folder: TemporaryFolder, program: PathBuf, held: SocketAddr, is_tls: bool) -> Self {
        fs::write(folder.path().join("file"), Self::file()).unwrap();
        let command = |folder: &TemporaryFolder, port: u16| {
            let path = folder.path().join("nginx.conf");
            fs::write(&path, configuration(port, held, is_tls)).unwrap();
            let mut command = Command::new(&program);
            command.args(["-e", "stderr", "-p"]).arg(folder.path());
            command.arg("-c").arg(path);
            command
        };
        let launch = Launch {
            command: &command,
            answers: &|port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(),
            signal: libc::SIGTERM,
        };
        let server = Server::start(folder, &launch);
        Self { server, is_tls }
    }

    /// What to put before a path.
    pub fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.server.port)
    }

    /// Where the certificate is, if it has one.
    pub fn certificate(&self) -> PathBuf {
        self.server.folder.path().join("certificate.pem")
    }

    /// A file of which every part is different.
    pub fn file() -> Vec<u8> {
        (0..50_000_u32).flat_map(u32::to_be_bytes).collect()
    }
}

fn configuration(port: u16, held: SocketAddr, is_tls: bool) -> String {
    let tls = if is_tls {
        "ssl; ssl_certificate certificate.pem; ssl_certificate_key key.pem"
    } else {
        ""
    };
    // Paths are relative to the folder, given as the prefix.
    format!(
        "daemon off; pid pid; worker_processes 1;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; default_type text/plain; keepalive_requests 100000;
            client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            server {{
                listen 127.0.0.1:{port} backlog=1024 {tls};
                location /echo {{ return 200 $args; }}
                location = /file {{ root .; }}
                location /held {{ proxy_pass http://{held}; }}
            }}
        }}"
    )
}
