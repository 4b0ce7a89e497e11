use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    parse(text).unwrap()
}

#[track_caller]
fn check(class: Class, addresses: &[&str]) {
    for text in addresses {
        assert_eq!(classify(ip(text)), class, "{text}");
    }
}

#[test]
fn both_sides_of_every_boundary_are_told_apart() {
    check(Class::Private, &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255"]);
    check(Class::Private, &["192.168.0.0", "192.168.255.255", "fec0::1"]);
    check(Class::Cgnat, &["100.64.0.0", "100.127.255.255"]);
    check(Class::Benchmark, &["198.18.0.0", "198.19.255.255", "2001:2:0:ffff::"]);
    check(Class::LinkLocal, &["169.254.0.0", "169.254.255.255", "fe80::", "febf:ffff::1"]);
    check(Class::Ula, &["fc00::", "fdff:ffff::1"]);
    check(Class::Loopback, &["127.0.0.0", "127.255.255.255", "::1"]);
    check(Class::Documentation, &["192.0.2.0", "203.0.113.255", "2001:db8:ffff::", "3fff:fff::1"]);
    check(Class::Multicast, &["224.0.0.0", "239.255.255.255", "ff02::1"]);
    check(Class::Reserved, &["0.0.0.1", "240.0.0.0", "255.255.255.254", "192.0.0.255"]);
    check(Class::Reserved, &["::2", "5f00::1", "2001:20::1", "64:ff9b:1::1", "e000::"]);
    check(Class::Discard, &["100::", "100::ffff:ffff:ffff:ffff"]);
    check(Class::Teredo, &["2001::", "2001:0:ffff::1"]);
    check(Class::Satellite, &["98.97.0.0", "2605:59c8::1"]);
    check(Class::Anycast, &["104.16.0.0", "104.27.255.255", "2620:fe::9", "2001:4:112::1"]);
    check(Class::Public, &["9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0"]);
    check(Class::Public, &["100.63.255.255", "100.128.0.0", "198.17.255.255", "198.20.0.0"]);
    check(Class::Public, &["169.253.255.255", "169.255.0.0", "126.255.255.255", "128.0.0.0"]);
    check(Class::Public, &["1.1.0.255", "1.1.2.0", "104.28.0.0", "223.255.255.255", "1.0.1.0"]);
    check(Class::Public, &["2001:200::", "2001:db7::", "2001:db9::", "3fff:1000::", "2000::"]);
}

#[test]
fn an_embedded_address_is_what_counts() {
    check(Class::Private, &["::ffff:10.0.0.1", "2002:a00:1::1", "64:ff9b::10.0.0.1"]);
    check(Class::Anycast, &["::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::808:808"]);
    assert_eq!(canonical(ip("64:ff9b::808:808")), ip("8.8.8.8"));
    assert_eq!(canonical(ip("2002:808:808::1")), ip("8.8.8.8"));
    assert_eq!(canonical(ip("2a00::1")), ip("2a00::1"));
}

#[test]
fn only_public_kinds_are_worth_a_lookup() {
    assert!(classify(ip("5.9.0.1")).is_located() && classify(ip("1.1.1.1")).is_located());
    assert!(!classify(ip("10.0.0.1")).is_located() && !classify(ip("2001::1")).is_located());
}

#[test]
fn an_address_is_read_whole_or_not_at_all() {
    assert_eq!(parse("fe80::1%eth0"), parse("fe80::1"));
    for bad in [
        "203.0.113.0/24",
        "not-an-ip",
        "",
        " 1.2.3.4",
        "010.0.0.1",
        "167772161",
        "0x7f.0.0.1",
        "1.2.3",
        "1.2.3.4:80",
        "[::1]",
        "1.2.3.4%eth0",
        "fe80::1%",
        &"1".repeat(65),
    ] {
        assert_eq!(parse(bad), None, "{bad:?}");
    }
}

#[test]
fn a_block_holds_its_addresses_and_no_others() {
    let within = |block: &str, it: &str| block.parse::<Cidr>().unwrap().contains(ip(it));
    assert!(within("10.0.0.0/8", "10.255.0.1") && !within("10.0.0.0/8", "11.0.0.0"));
    assert!(within("10.0.0.0/8", "::ffff:10.0.0.1") && within("::ffff:10.0.0.0/104", "10.1.1.1"));
    assert!(within("0.0.0.0/0", "255.1.1.1") && !within("0.0.0.0/0", "2a00::1"));
    assert!(within("::/0", "2a00::1") && !within("::/0", "1.2.3.4"));
    assert!(within("::1", "::1") && !within("::1", "::2") && !within("::/8", "1.2.3.4"));
    assert!(within("fd00::/8", "fdff::1") && !within("2a00::/16", "2a01::"));
}

#[test]
fn what_is_not_a_block_is_refused_with_the_remedy() {
    let read = |text: &str| text.parse::<Cidr>();
    for bad in ["", "/8", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/08", "10.0.0.0/8/8", "::%x/8"] {
        assert_eq!(read(bad), Err(BadCidr::Malformed), "{bad:?}");
    }
    assert_eq!(read("10.0.0.0/33"), Err(BadCidr::Prefix));
    assert_eq!(read("::/129"), Err(BadCidr::Prefix));
    let error = read("10.1.0.0/8").unwrap_err();
    assert_eq!(error, BadCidr::HostBits(read("10.0.0.0/8").unwrap()));
    assert!(error.to_string().ends_with("10.0.0.0/8"));
    assert_eq!(read("10.0.0.1").map(|it| it.to_string()), Ok("10.0.0.1/32".to_owned()));
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,80}") {
        let _ = (parse(&text), text.parse::<Cidr>());
    }

    #[test]
    fn a_block_reads_back_and_holds_its_base(bits: u128, prefix in 0_u8..=128, v4: bool) {
        let ip: IpAddr = if v4 {
            Ipv4Addr::from_bits(bits as u32).into()
        } else {
            Ipv6Addr::from_bits(bits | 1 << 127).into()
        };
        let prefix = if v4 { prefix % 33 } else { prefix };
        let base = masked(ip, prefix);
        let block: Cidr = format!("{base}/{prefix}").parse().unwrap();
        prop_assert!(block.contains(ip) && block.base() == base);
        prop_assert_eq!(block.to_string().parse(), Ok(block));
    }

    #[test]
    fn every_address_has_a_class(bits: u128) {
        let v4 = IpAddr::V4(Ipv4Addr::from_bits(bits as u32));
        prop_assert_eq!(classify(v4), classify(Ipv6Addr::from_bits(0xffff << 32 | u128::from(bits as u32)).into()));
        classify(Ipv6Addr::from_bits(bits).into());
    }
}
