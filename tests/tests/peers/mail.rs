//! SMTP: a server that speaks first, curl in front of it.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use gateway_tests::Gateway;
use gateway_tests::peer::{Peer, Ran, free_address, run};
use tempfile::TempDir;

use crate::authority::{Authority, word};

const MAIL: &str = r#"
    frontend "smtp" { mode "tcp"; bind "127.0.0.1:0"; default-backend "smtp" }
    frontend "smtps" { mode "tcp"; bind "127.0.0.1:0" { tls cert="@bundle" }; default-backend "smtp" }
    backend "smtp" {
        mode "tcp"
        check "tcp" interval="1s" fast-interval="200ms" down-interval="200ms" rise=2 fall=2 initial="down" { expect regex="^220[ -]"; send "QUIT\r\n"; expect prefix="221" }
        server "mx-1" "@mx"
    }
"#;

#[cfg_attr(not(feature = "peers"), ignore = "needs aiosmtpd and curl: --features peers")]
#[tokio::test]
async fn a_message_arrives_plain_and_over_tls() {
    let authority = Authority::new();
    let mx = Mx::start();
    let gateway = Gateway::kdl(MAIL)
        .with("@bundle", word(&authority.issue("mx.example").bundle))
        .with("@mx", mx.address)
        .start()
        .await;
    crate::down_while_frozen(&gateway, "mx-1", &mx.peer).await;

    let text = "Subject: plain\r\n\r\nhello\r\n.\r\nand a line that began with a dot\r\n";
    let url = format!("smtp://{}", gateway.address("smtp"));
    post(&[&url], text).await.ok();
    let port = gateway.address("smtps").port();
    let (url, resolve) = (
        format!("smtps://mx.example:{port}"),
        format!("mx.example:{port}:127.0.0.1"),
    );
    let ca = authority.ca();
    let large = format!("Subject: secret\r\n\r\n{}", "0123456789abcdef\r\n".repeat(1 << 16));
    post(&[&url, "--resolve", &resolve, "--cacert", word(&ca)], &large)
        .await
        .ok();

    let mut messages = mx.messages();
    messages.sort_by_key(String::len);
    assert_eq!(messages.len(), 2);
    assert!(
        messages[0].contains("\nand a line that began with a dot"),
        "{}",
        messages[0]
    );
    assert_eq!(messages[1].matches("0123456789abcdef").count(), 1 << 16);
}

async fn post(arguments: &[&str], text: &str) -> Ran {
    let mut command = Command::new("curl");
    command
        .args([
            "-sS",
            "--max-time",
            "20",
            "--mail-from",
            "a@example.net",
            "--mail-rcpt",
            "b@example.net",
        ])
        .args(["--crlf", "-T", "-"])
        .args(arguments);
    run(command, text, Duration::from_secs(30)).await
}

/// aiosmtpd, which keeps what it gets in a maildir.
struct Mx {
    address: SocketAddr,
    peer: Peer,
    directory: TempDir,
}

impl Mx {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        // Debian's python3, which has the module.
        let mut command = Command::new("/usr/bin/python3");
        command
            .args([
                "-m",
                "aiosmtpd",
                "-n",
                "-l",
                &address.to_string(),
                "-c",
                "aiosmtpd.handlers.Mailbox",
            ])
            .arg(directory.path().join("mail"));
        Self {
            address,
            peer: Peer::logging(&mut command, address, &directory.path().join("log")),
            directory,
        }
    }

    fn messages(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.directory.path().join("mail/new")).unwrap();
        files
            .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
            .collect()
    }
}
