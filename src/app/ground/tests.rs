use tempfile::TempDir;

use super::*;
use crate::net::tls::{Authority, Identity};

const NODE: &str = "[node]\nname = \"fra-1\"\nregion = \"FRA\"\n";
const KEY: &str = "ticket_key = \"ticket.key\"\n";
const SOMEBODY: &str = "[[orchestrator]]\nuri = \"https://127.0.0.1:1\"\n";

/// A folder with all a node needs, and what is thought of a file there.
struct Ground(TempDir);

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ticket.key"), "0a".repeat(32)).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    /// Surveys a node of `more`, and checks that nothing was made or bound meanwhile.
    fn survey(&self, more: &str) -> Vec<Doubt> {
        self.write("node.toml", &format!("{NODE}{more}"));
        let config = Config::load(&self.0.path().join("node.toml")).unwrap();
        let files = || fs::read_dir(self.0.path()).unwrap().count();
        let before = files();
        let doubts = survey(&config);
        assert_eq!(files(), before, "a survey writes nothing");
        doubts
    }

    #[track_caller]
    fn check(&self, more: &str, weight: Weight, parts: &[&str]) {
        let doubts = self.survey(more);
        let [doubt] = doubts.as_slice() else { panic!("not one doubt: {doubts:#?}") };
        assert_eq!(doubt.weight, weight, "{doubt}");
        let said = doubt.to_string();
        for part in parts {
            assert!(said.contains(part), "{part:?} is missing in: {said}");
        }
        assert_eq!(refuse(&doubts).is_err(), weight == Weight::Refused);
    }

    /// Writes the files of a mesh, for a node of this name.
    fn enrol(&self, node: &str) -> String {
        let authority = Authority::generate("mesh.test").unwrap();
        let identity = authority.issue(node.parse().unwrap()).unwrap();
        self.take(&authority, &identity);
        format!(
            "{KEY}[mesh]\nlisten = \"127.0.0.1:7935\"\ntrust_domain = \"mesh.test\"\n\
             ca = \"ca.pem\"\ncert = \"node.pem\"\nkey = \"node.key\"\n{SOMEBODY}"
        )
    }

    fn take(&self, authority: &Authority, identity: &Identity) {
        self.write("ca.pem", &authority.trust().ca_pem);
        self.write("node.pem", &identity.cert_pem);
        self.write("node.key", &identity.key_pem);
    }
}

#[test]
fn a_node_that_has_all_it_needs_is_not_doubted() {
    let ground = Ground::new();
    assert_eq!(ground.survey(&format!("{KEY}[log]\njournal = \"a/b/usage.log\"\n{SOMEBODY}")), []);
}

#[test]
fn a_key_of_urls_is_read() {
    let ground = Ground::new();
    let missing = format!("ticket_key = \"none.key\"\n{SOMEBODY}");
    ground.check(&missing, Weight::Refused, &["node.ticket_key", "none.key", "No such file"]);
    ground.write("ticket.key", "secret");
    let said = ground.survey(&format!("{KEY}{SOMEBODY}"))[0].to_string();
    assert!(said.contains("64 hexadecimal digits") && !said.contains("secret"), "{said}");
    ground.write("ticket.key", &"é".repeat(32));
    ground.check(&format!("{KEY}{SOMEBODY}"), Weight::Refused, &["64 hexadecimal digits"]);
    ground.check(SOMEBODY, Weight::Odd, &["node.ticket_key = none", "end with the process"]);
}

#[test]
fn a_journal_can_be_written_or_made() {
    let ground = Ground::new();
    let at = |path: &str| format!("{KEY}[log]\njournal = \"{path}\"\n{SOMEBODY}");
    fs::create_dir(ground.0.path().join("folder")).unwrap();
    ground.check(&at("folder"), Weight::Refused, &["log.journal", "it is a folder"]);
    ground.check(&at("ticket.key/usage.log"), Weight::Refused, &["log.journal", "ticket.key"]);
    assert_eq!(ground.survey(&at("ticket.key")), [], "any file is one");
}

#[test]
fn a_data_folder_is_there_and_holds_an_epoch() {
    let ground = Ground::new();
    let mesh = ground.enrol("fra-1");
    let at = |path: &str| mesh.replace("[mesh]\n", &format!("[mesh]\ndata = \"{path}\"\n"));
    ground.check(&at("data"), Weight::Refused, &["mesh.data", "no such folder"]);
    ground.check(&at("ca.pem"), Weight::Refused, &["mesh.data", "it is no folder"]);
    fs::create_dir(ground.0.path().join("data")).unwrap();
    assert_eq!(ground.survey(&at("data")), []);
    ground.write("data/epoch", "yesterday");
    ground.check(&at("data"), Weight::Refused, &["mesh.data", "no boot epoch"]);
}

#[test]
fn a_name_in_the_mesh_is_believed() {
    let ground = Ground::new();
    let mesh = ground.enrol("fra-1");
    assert_eq!(ground.survey(&mesh), []);
    ground.write("node.key", "no key");
    ground.check(&mesh, Weight::Refused, &["mesh.key", "node.key", "holds no PEM"]);
    let [one, other] = [(); 2].map(|()| Authority::generate("mesh.test").unwrap());
    let [mine, theirs] = [&one, &other].map(|it| it.issue("fra-1".parse().unwrap()).unwrap());
    ground.take(&one, &Identity { key_pem: theirs.key_pem, ..mine.clone() });
    ground.check(&mesh, Weight::Refused, &["mesh.cert", "do not work together"]);
    ground.take(&other, &mine);
    ground.check(&mesh, Weight::Broken, &["mesh.cert", "portolan node enroll"]);
    ground.take(&one, &one.issue("nyc-1".parse().unwrap()).unwrap());
    ground.check(&mesh, Weight::Broken, &["mesh.cert", "names nyc-1, not fra-1"]);
}

#[test]
fn a_port_is_taken_once() {
    let ground = Ground::new();
    let at = |public: &str, admin: &str| {
        format!("{KEY}[listen]\npublic = \"{public}\"\nadmin = \"{admin}\"\n{SOMEBODY}")
    };
    let said = ["listen.admin = \"127.0.0.1:80\"", "listen.public = ", "another port"];
    for public in ["127.0.0.1:80", "0.0.0.0:80", "[::ffff:127.0.0.1]:80"] {
        ground.check(&at(public, "127.0.0.1:80"), Weight::Refused, &said);
    }
    for (public, admin) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:80", "127.0.0.1:81"),
        ("127.0.0.2:80", "127.0.0.1:80"),
        ("[::1]:80", "127.0.0.1:80"),
    ] {
        assert_eq!(ground.survey(&at(public, admin)), []);
    }
    // Over UDP and over TCP a port is another.
    let dns = "[dns]\nlisten = \"127.0.0.1:53\"\nname = \"gateway.test\"\nservers = [\"ns.test\"]\n\
               [[dns.node]]\nnode = \"fra-1\"\nregion = \"FRA\"\naddresses = [\"192.0.2.1\"]\n";
    let mesh = ground.enrol("fra-1");
    let mesh = |port| mesh.replace(":7935", port);
    assert_eq!(ground.survey(&format!("{}{dns}", mesh(":8936"))), []);
    let both = format!("{}{dns}", mesh(":53"));
    ground.check(&both, Weight::Refused, &["mesh.listen", "dns.listen"]);
}

#[test]
fn all_addresses_cover_each_and_of_the_other_family_where_the_system_has_it_so() {
    let clash = |a: &str, b: &str, apart| {
        let [a, b] = [a, b].map(|it| it.parse().unwrap());
        assert_eq!(do_clash(a, b, apart), do_clash(b, a, apart));
        do_clash(a, b, apart)
    };
    assert!(clash("[::]:80", "127.0.0.1:80", false) && clash("[::]:80", "0.0.0.0:80", false));
    assert!(!clash("[::]:80", "127.0.0.1:80", true) && !clash("[::]:80", "0.0.0.0:80", true));
    assert!(clash("[::]:80", "[::1]:80", true));
    assert!(!clash("0.0.0.0:80", "[::1]:80", false));
}

#[test]
fn an_open_door_of_the_operator_and_a_node_without_work_are_odd() {
    let ground = Ground::new();
    for at in ["0.0.0.0:7936", "[::]:7936", "192.0.2.1:7936"] {
        let open = format!("{KEY}[listen]\nadmin = \"{at}\"\n{SOMEBODY}");
        ground.check(&open, Weight::Odd, &["listen.admin", at, "without a password", "127.0.0.1"]);
    }
    ground.check(KEY, Weight::Odd, &["orchestrator = none", "[[source]]"]);
    let copied = format!("{KEY}[[orchestrator]]\nuri = \"https://orchestrator.example:8935\"\n");
    ground.check(&copied, Weight::Odd, &["orchestrator.uri", ".example"]);
    let list = format!("{KEY}[[source]]\nurl = \"https://127.0.0.1:1/x\"\nkind = \"webhook\"\n");
    assert_eq!(ground.survey(&list), []);
}

#[test]
fn a_database_that_is_not_there_is_replaced_and_said() {
    let (geo, doubt) = database(vec!["/nowhere.mmdb".into()]);
    let doubt = doubt.unwrap();
    assert_eq!(doubt.weight, Weight::Broken);
    assert!(doubt.to_string().contains("/nowhere.mmdb"), "{doubt}");
    assert!(geo.current().editions().all(|it| it.source == "embedded"));
    assert_eq!(database(Vec::new()).1, None);
}
