use proptest::prelude::*;

use super::*;

const LEAST: &str = "[node]\nname = \"fra-1\"\nregion = \"FRA\"\n";

fn read(text: &str) -> Result<Config, ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Config::load(file.path())
}

#[track_caller]
fn refused(more: &str, parts: &[&str]) {
    let error = read(&format!("{LEAST}{more}")).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is missing in: {error}");
    }
}

#[test]
fn name_and_region_are_enough() {
    let config = read(LEAST).unwrap();
    assert_eq!(config.listeners[0].address.to_string(), defaults::PUBLIC);
    assert!(config.admin.ip().is_loopback());
    assert!(config.mesh.is_none());
}

#[test]
fn every_complaint_names_key_value_and_remedy() {
    refused("[policy]\ncountries = [\"Germany\"]\n", &["policy.countries", "Germany", "\"DE\""]);
    refused(
        "[[orchestrator]]\nuri = \"ftp://x\"\n",
        &["orchestrator[0].uri", "ftp://x", "https://host:8935"],
    );
    refused(
        "[[orchestrator]]\nuri = \"https://x:1\"\nregion = \"XXX\"\n",
        &["orchestrator[0].region", "XXX", "one of", "FRA"],
    );
    refused(
        "[[orchestrator]]\nuri = \"https://x:1\"\npoint = [91.0, 0.0]\n",
        &["orchestrator[0].point", "91", "[latitude, longitude]"],
    );
    refused(
        "[location]\ntrusted_proxies = [\"10.0.0.0/99\"]\n",
        &["location.trusted_proxies", "/99"],
    );
    refused("[limits]\nlanes = 300\n", &["limits.lanes", "\"300\"", "at most 256"]);
    refused("[limits]\nin_flight = 0\n", &["limits.in_flight", "\"0\"", "at least 1"]);
    refused("[[peer]]\nnode = \"nyc-1\"\n", &["peer", "nyc-1", "[mesh]"]);
    refused(
        "[mesh]\nlisten = \"0.0.0.0:7935\"\naddress = \"0.0.0.0:7935\"\ntrust_domain = \"m\"\n\
         ca = \"ca\"\ncert = \"cert\"\nkey = \"key\"\n",
        &["mesh.address", "0.0.0.0:7935", "other nodes reach this one"],
    );
}

#[test]
fn a_mesh_is_told_what_its_ca_and_operator_lack() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display();
    let mesh = format!(
        "[mesh]\nlisten = \"0.0.0.0:1\"\ntrust_domain = \"m\"\nca = \"{path}\"\n\
         cert = \"{path}\"\nkey = \"{path}\"\n"
    );
    read(&format!("{LEAST}{mesh}")).unwrap();
    refused(&format!("{mesh}enrolment = \"ca\"\n"), &["mesh.enrolment", "host and port"]);
    refused(&format!("{mesh}enrolment = \"ca:1\"\n"), &["mesh.enrolment", "mesh.revoked"]);
    refused(&format!("{mesh}revoked = \"nowhere\"\n"), &["mesh.revoked", "no such file"]);
    let operator = format!("{mesh}operator = \"{path}\"\n");
    refused(&operator, &["mesh.operator", "no PEM Ed25519 public key"]);
}

#[test]
fn all_complaints_come_at_once() {
    let error = read("[node]\nname = \"a b\"\nregion = \"NOWHERE\"\n").unwrap_err();
    assert_eq!(error.to_string().lines().count(), 2, "{error}");
}

#[test]
fn a_misspelt_key_is_found_with_its_line() {
    refused("[listen]\npublik = \"0.0.0.0:1\"\n", &["publik", "line 5"]);
}

#[test]
fn a_word_without_quotes_is_told_of_them() {
    let of = |line: &str| read(&format!("[node]\nname = \"a\"\n{line}\n")).unwrap_err().to_string();
    for (line, quoted) in [
        ("region = FRA # the near one", "region = \"FRA\""),
        ("region = nyc", "region = \"nyc\""),
        ("region = true.x", "region = \"true.x\""),
        ("region = \"FRA\"\n[listen]\nadmin = 127.0.0.1:7936", "admin = \"127.0.0.1:7936\""),
    ] {
        let said = of(line);
        assert!(said.ends_with(&format!("text stands in quotes: {quoted}")), "{said}");
        assert!(said.contains("node.toml") || said.contains("line "), "{said}");
    }
    for line in ["region = \"FRA", "region = [", "region =", "region", "region = 7"] {
        let said = of(line);
        assert!(!said.contains("quotes: "), "{said}");
    }
}

#[test]
fn an_address_that_is_none_is_named_with_one_that_is() {
    refused(
        "[listen]\npublic = \"0.0.0.0\"\nadmin = \"localhost:7936\"\n",
        &[
            "listen.public = \"0.0.0.0\": it has no port; such as \"0.0.0.0:8936\"",
            "listen.admin = \"localhost:7936\": names are not looked up; such as \"127.0.0.1:7936\"",
        ],
    );
    refused("[[listener]]\naddress = \":443\"\n", &["listener[0].address", "0.0.0.0:443"]);
    refused("[upstream]\nfrom = \"eth0\"\n", &["upstream.from", "eth0", "192.0.2.1"]);
}

#[test]
fn a_region_that_is_nearly_one_is_told_which() {
    for (code, meant) in [
        ("fra", "did you mean FRA? one of AKL"),
        ("frankfurt", "did you mean FRA?"),
        ("NYX", "did you mean NYC?"),
        ("FAR", "did you mean FRA?"),
        ("nowhere", "no such region; one of AKL"),
    ] {
        let more = format!("[[orchestrator]]\nuri = \"https://x:1\"\nregion = \"{code}\"\n");
        refused(&more, &["orchestrator[0].region", code, meant]);
    }
}

#[test]
fn one_orchestrator_is_listed_once_however_it_is_spelt() {
    refused(
        "[[orchestrator]]\nuri = \"https://X:1\"\n[[orchestrator]]\nuri = \"x:1/\"\n",
        &["orchestrator[1].uri", "listed twice"],
    );
}

/// Every example of the README is a configuration, or a part of one.
#[test]
fn the_readme_shows_what_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ca.pem", "node.pem", "node.key", "revoked.pem", "ticket.key"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    let operator = crate::operator::OperatorKey::from_seed([1; 32]).unwrap().public().to_pem();
    std::fs::write(folder.path().join("operator.pub"), operator).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.path().join("fra.pem"), made.pem()).unwrap();
    std::fs::write(folder.path().join("fra.key"), key.serialize_pem()).unwrap();
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```toml\n").skip(1).map(|it| it.split("```").next().unwrap());
    let mut n_blocks = 0;
    for block in blocks {
        let whole =
            if block.contains("[node]") { block.to_owned() } else { format!("{LEAST}{block}") };
        let path = folder.path().join("node.toml");
        std::fs::write(&path, &whole).unwrap();
        if let Err(error) = Config::load(&path) {
            panic!("{error}\nin:\n{block}");
        }
        n_blocks += 1;
    }
    assert!(n_blocks >= 4, "{n_blocks} examples");
}

proptest! {
    #[test]
    fn any_text_is_a_configuration_or_a_complaint(text in ".{0,300}") {
        drop(read(&text));
    }
}
