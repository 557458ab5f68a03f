//! LDAP: OpenLDAP's server, ldapsearch and ldapwhoami in front of it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use gateway_tests::Gateway;
use gateway_tests::peer::{Peer, Ran, free_address, run};
use tempfile::TempDir;

use crate::authority::{Authority, word};

const DIRECTORY: &str = r#"
    frontend "ldap" { mode "tcp"; bind "127.0.0.1:0"; default-backend "ldap" }
    frontend "ldaps" { mode "tcp"; bind "127.0.0.1:0" { tls cert="@bundle" }; default-backend "ldap" }
    backend "ldap" {
        mode "tcp"
        check "tcp" interval="1s" fast-interval="200ms" down-interval="200ms" rise=2 fall=2 initial="down" {
            send hex="300c 020101 6007 020103 0400 8000"
            expect prefix-hex="30 0c 02 01 01 61 07 0a 01 00"
        }
        server "ldap-1" "@ldap"
    }
"#;

#[cfg_attr(not(feature = "peers"), ignore = "needs OpenLDAP: --features peers")]
#[tokio::test]
async fn binds_and_searches_pass_plain_and_over_tls() {
    let authority = Authority::new();
    let slapd = Slapd::start().await;
    let gateway = Gateway::kdl(DIRECTORY)
        .with("@bundle", word(&authority.issue("127.0.0.1").bundle))
        .with("@ldap", slapd.address)
        .start()
        .await;
    crate::down_while_frozen(&gateway, "ldap-1", &slapd.peer).await;
    let plain = format!("ldap://127.0.0.1:{}", gateway.address("ldap").port());
    // Not localhost, in whose place libldap puts the name of the machine.
    let secure = format!("ldaps://127.0.0.1:{}", gateway.address("ldaps").port());

    for url in [&plain, &secure] {
        let whoami = ldap("ldapwhoami", &authority, url, &[]).await.ok();
        assert_eq!(whoami.trim(), "dn:cn=admin,dc=example,dc=net");
        let found = ldap(
            "ldapsearch",
            &authority,
            url,
            &["-LLL", "-b", "dc=example,dc=net", "(uid=u77)"],
        )
        .await;
        assert!(found.ok().contains("dn: uid=u77,dc=example,dc=net"));
        let all = ldap(
            "ldapsearch",
            &authority,
            url,
            &["-LLL", "-b", "dc=example,dc=net", "(uid=*)"],
        )
        .await;
        assert_eq!(all.ok().matches("dn: uid=").count(), PEOPLE);
    }
    // The password is the server's to judge.
    let wrong = ldap("ldapwhoami", &authority, &plain, &["-w", "wrong"]).await;
    assert_eq!(wrong.code, Some(49), "{wrong:?}");
}

async fn ldap(program: &str, authority: &Authority, url: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command.env("LDAPTLS_CACERT", authority.ca()).args([
        "-x",
        "-o",
        "nettimeout=10",
        "-D",
        "cn=admin,dc=example,dc=net",
        "-H",
        url,
    ]);
    if !arguments.contains(&"-w") {
        command.args(["-w", "secret"]);
    }
    command.args(arguments);
    run(command, "", Duration::from_secs(30)).await
}

struct Slapd {
    address: SocketAddr,
    peer: Peer,
    _directory: TempDir,
}

impl Slapd {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let path = directory.path();
        std::fs::create_dir(path.join("data")).unwrap();
        let configuration = format!(
            "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
             include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n\
             pidfile {0}/pid\nsizelimit unlimited\ndatabase mdb\nsuffix \"dc=example,dc=net\"\n\
             rootdn \"cn=admin,dc=example,dc=net\"\nrootpw secret\ndirectory {0}/data\nmaxsize 33554432\n",
            path.display()
        );
        std::fs::write(path.join("slapd.conf"), configuration).unwrap();
        let mut add = Command::new("slapadd");
        add.arg("-q").arg("-f").arg(path.join("slapd.conf"));
        run(add, people(), Duration::from_secs(30)).await.ok();

        let mut command = Command::new("slapd");
        command
            .args(["-d", "none", "-h", &format!("ldap://{address}/"), "-f"])
            .arg(path.join("slapd.conf"));
        Self {
            address,
            peer: Peer::logging(&mut command, address, &path.join("log")),
            _directory: directory,
        }
    }
}

/// As LDIF.
fn people() -> String {
    let mut ldif = "dn: dc=example,dc=net\nobjectClass: organization\nobjectClass: dcObject\no: example\n\n".to_owned();
    for n in 0..PEOPLE {
        let _ = writeln!(
            ldif,
            "dn: uid=u{n},dc=example,dc=net\nobjectClass: inetOrgPerson\nuid: u{n}\ncn: User {n}\nsn: {n}\n\
             description: {}\n",
            "some text ".repeat(20)
        );
    }
    ldif
}

const PEOPLE: usize = 2000;
