//! Checks that HAProxy has an option for, one for each protocol: said here as the steps that they come to.

use super::haproxy::Line;
use super::outline::Node;

/// Whether an option says which protocol servers are checked in, beside `tcp-check` and `httpchk`.
pub(super) fn is_option(word: &str) -> bool {
    OPTIONS.contains(&word)
}

/// The steps of a check, and what is different about them, where that has to be known.
pub(super) fn steps(option: &Line) -> (Vec<Node>, Option<&'static str>) {
    let send = |text: &str| Node::new("send").arg(text);
    let hex = |text: &str| Node::new("send").prop("hex", text);
    let expect = |how: &str, text: &str| Node::new("expect").prop(how, text);
    let user = option.words.iter().skip_while(|word| *word != "user").nth(1);
    match option.word(1) {
        Some("redis-check") => (vec![send("PING\r\n"), expect("prefix", "+PONG")], None),
        Some("smtpchk") => {
            let hello = match option.rest(2) {
                [word, name, ..] => format!("{word} {name}\r\n"),
                _ => "HELO localhost\r\n".to_owned(),
            };
            let steps = vec![
                expect("regex", "(?m)^220 "),
                send(&hello),
                // The last line of an answer has a space there, and the others a hyphen.
                expect("regex", "(?m)^250 "),
                send("QUIT\r\n"),
                expect("prefix", "221"),
            ];
            (steps, None)
        }
        Some("mysql-check") => {
            let mut steps = vec![expect("regex", r"^(?s:.{3})\x00\x0a")];
            let is_old = option.words.iter().any(|word| word == "pre-41");
            let Some(user) = user.filter(|_| !is_old) else {
                let note = "the server's greeting is awaited, and nobody logs in";
                return (steps, is_old.then_some(note));
            };
            steps.push(hex(&mysql_login(user)));
            // OK, where an error would be ff; and the end of the session.
            steps.push(expect("regex", r"^(?s:.{3})\x02\x00"));
            steps.push(hex("01000000 01"));
            (steps, None)
        }
        Some("pgsql-check") => {
            let user = user.map_or("postgres", String::as_str);
            // Length, version 3.0, parameters with a zero behind each of their words, and one behind all of them.
            let parameters = [b"user\0", user.as_bytes(), b"\0\0"].concat();
            let length = u32::try_from(parameters.len() + 8).unwrap_or(u32::MAX);
            let digits: String = parameters.iter().map(|byte| format!("{byte:02x}")).collect();
            let begin = format!("{length:08x} 00030000 {digits}");
            // R asks for a password, or for nothing; E is an error.
            (vec![hex(&begin), expect("prefix", "R")], None)
        }
        Some("ldap-check") => {
            let steps = vec![
                hex("300c 020101 6007 020103 0400 8000"),
                expect("prefix-hex", "300c 020101 6107 0a0100"),
            ];
            (steps, None)
        }
        _ => {
            let note = "a whole handshake of TLS 1.2 or 1.3 is made, whatever certificate the server shows";
            (vec![Node::new("tls").prop("verify", "none")], Some(note))
        }
    }
}

/// HandshakeResponse41 of MySQL's protocol: who logs in, without a password and for no database.
fn mysql_login(user: &str) -> String {
    // CLIENT_PROTOCOL_41 and CLIENT_SECURE_CONNECTION, packets of 16 MiB, UTF-8, 23 bytes for later.
    let fixed = format!("00820000 00000001 21 {}", "00".repeat(23));
    let user: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
    let length = 4 + 4 + 1 + 23 + user.len() / 2 + 2;
    // Three bytes, the lowest first; a line of HAProxy's is never as long as the third would need.
    let [low, high, ..] = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    format!("{low:02x}{high:02x}00 01 {fixed} {user}00 00")
}

const OPTIONS: [&str; 6] = [
    "redis-check",
    "smtpchk",
    "mysql-check",
    "pgsql-check",
    "ldap-check",
    "ssl-hello-chk",
];
