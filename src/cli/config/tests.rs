//! Tests of the configuration file and its flags.

use super::*;

const FULL: &str = "\
# what a platform team writes
repositories:
  - url: https://git.example.com/team/apps.git
    branch: main
    path: clusters/prod
    poll: 1m
    pushInterval: 15s
    author: {name: Serin, email: serin@example.com}
    committer: {name: Robot, email: robot@example.com}
    skipCi: '[skip ci]'
    timeout: 20s
    acceptRewrittenHistory: true
    namespaces: [prod]
    impersonate: prod/deployer
prometheus:
  url: https://prometheus.example.com:9090
  timeout: 5s
  basicAuth: {username: serin, passwordFile: secrets/password}
  tls: {caFile: secrets/ca.pem}
cluster: {connect: in-cluster, mode: warn, prune: true}
listen: 127.0.0.1:8080
cacheDir: /var/cache/serin
";

fn complete(text: &str) -> Result<Config, String> {
    ConfigFile::parse(text)?
        .with_flags(
            &RepositoryFlags::default(),
            &PrometheusFlags::default(),
            None,
            None,
        )
        .map_err(|failure| failure.to_string())
}

fn mistake(text: &str) -> String {
    complete(text).unwrap_err()
}

#[test]
fn every_field_is_read() {
    let config = complete(FULL).unwrap();
    let repository = &config.repositories[0];
    assert_eq!(repository.branch.as_deref(), Some("main"));
    assert_eq!(repository.path.as_ref().unwrap().as_str(), "clusters/prod");
    assert_eq!(repository.poll, Duration::from_secs(60));
    assert_eq!(repository.push_interval, Duration::from_secs(15));
    assert_eq!(repository.committer().name, "Robot");
    assert_eq!(repository.skip_ci.as_deref(), Some("[skip ci]"));
    assert_eq!(config.prometheus.timeout, Duration::from_secs(5));
    assert_eq!(config.prometheus.basic_auth.unwrap().username, "serin");
    assert_eq!(config.listen.unwrap().port(), 8080);
    assert!(repository.namespaces.contains("prod"));
    let account = repository.impersonate.as_ref().unwrap();
    assert_eq!(
        (account.0.as_str(), account.1.as_str()),
        ("prod", "deployer")
    );
    assert!(config.cluster.conduct.prune);
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = complete(
        "repositories: [{url: ../apps.git}]\nprometheus: {url: 'http://localhost:9090'}\n",
    )
    .unwrap();
    let repository = &config.repositories[0];
    assert_eq!(repository.push_interval, Duration::from_secs(10));
    assert_eq!(
        repository.committer().to_string(),
        "Serin <serin@localhost>"
    );
    assert_eq!(config.cluster, ClusterConfig::default());
    assert_eq!(config.cluster.choice, ClusterChoice::None);
    assert_eq!(config.listen, None);
}

#[test]
fn mistakes_say_where_and_what_was_meant() {
    insta::assert_snapshot!(mistake("repositores: []\n"), @"1:1: unknown field `repositores`; did you mean `repositories`?");
    insta::assert_snapshot!(mistake("repositories:\n  - url: a\n    pushintervall: 10s\n"), @"3:5: unknown field `pushintervall`; did you mean `pushInterval`?");
    insta::assert_snapshot!(mistake("repositories:\n  - url: a\n    colour: red\n"), @"3:5: unknown field `colour`; known here are url, branch, path, poll, pushInterval, author, committer, timeout, acceptRewrittenHistory, plan, shards, namespaces, impersonate, skipCi, sign, verify, name, webhook, poke");
    insta::assert_snapshot!(mistake("repositories:\n  - url: a\n    poll: 10\n"), @"3:11: `10` is not a length of time; write it like 500ms, 30s, 2m or 1h30m");
    insta::assert_snapshot!(mistake("repositories:\n  - url: a\n    poll: 0s\n"), @"3:11: this cannot be zero");
    insta::assert_snapshot!(mistake("repositories:\n  - branch: main\n"), @"2:5: missing field `url`");
    insta::assert_snapshot!(mistake("repositories:\n  - url: a\n    path: ../b\n"), @"3:11: write a path inside the repository, like clusters/prod, without `..` and a leading `/`");
    insta::assert_snapshot!(mistake("repositories:\n  - url: a\n    author: {name: '', email: a@b}\n"), @"3:13: a name cannot be empty or hold `<`, `>` or line breaks");
    insta::assert_snapshot!(mistake("cluster: mars\n"), @"1:10: `mars` names no cluster: write `none`, `in-cluster`, `kubeconfig` or `kubeconfig:CONTEXT`");
    insta::assert_snapshot!(mistake("prometheus:\n  url: http://u:p@prom\n"), @"2:8: credentials do not belong into a URL; name the files that hold them");
    insta::assert_snapshot!(mistake("repositories: [\n"), @"1:15: unclosed bracket '['");
    insta::assert_snapshot!(mistake("# nothing\n"), @"1:1: the file is empty; `repositories` is what it needs");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let prometheus = "prometheus: {url: 'http://p:9090'}\n";
    insta::assert_snapshot!(mistake(prometheus), @"there is no repository to work on: give --repo URL, or --config FILE with `repositories`");
    insta::assert_snapshot!(mistake("repositories: [{url: a}]\n"), @"there is no Prometheus to ask: give --prometheus URL, or --config FILE with `prometheus`");
    insta::assert_snapshot!(
        mistake(&format!("repositories: [{{url: 'https://u:pw@h/a'}}, {{url: 'https://u:pw@h/a', path: b}}]\n{prometheus}")),
        @"the default branch of https://h/a is listed twice: one entry may cover several folders, leave out `path`"
    );
    let with = |more: &str| {
        mistake(&format!(
            "repositories: [{{url: a}}]\nprometheus: {{url: 'https://p:9090', {more}}}\n"
        ))
    };
    insta::assert_snapshot!(with("bearerTokenFile: t, basicAuth: {username: u, passwordFile: p}"), @"Prometheus is given a bearer token and a password: choose one");
    insta::assert_snapshot!(with("tls: {certFile: c}"), @"a client certificate for Prometheus needs both files, certificate and key");
}

#[test]
fn flags_win_over_the_file() {
    let repository = RepositoryFlags {
        branch: Some("steps".into()),
        ..RepositoryFlags::default()
    };
    let prometheus = PrometheusFlags {
        prometheus: Some("https://other:9090".parse().unwrap()),
        ..PrometheusFlags::default()
    };
    let config = ConfigFile::parse(FULL)
        .unwrap()
        .with_flags(&repository, &prometheus, None, None)
        .unwrap();
    assert_eq!(config.repositories[0].branch.as_deref(), Some("steps"));
    assert_eq!(
        config.repositories[0].push_interval,
        Duration::from_secs(15)
    );
    assert_eq!(config.prometheus.url.to_string(), "https://other:9090");
    // Credentials belong to the server that they were given for.
    assert_eq!(config.prometheus.basic_auth, None);

    let elsewhere = RepositoryFlags {
        repo: Some("../other.git".parse().unwrap()),
        ..RepositoryFlags::default()
    };
    let config = ConfigFile::parse(FULL)
        .unwrap()
        .with_flags(&elsewhere, &PrometheusFlags::default(), None, None)
        .unwrap();
    assert_eq!(config.repositories.len(), 1);
    assert_eq!(config.repositories[0].branch, None);
}

#[test]
fn a_flag_about_one_of_several_repositories_is_ambiguous() {
    let two = "repositories: [{url: a}, {url: b}]\nprometheus: {url: 'http://p:9090'}\n";
    let repository = RepositoryFlags {
        branch: Some("steps".into()),
        ..RepositoryFlags::default()
    };
    let failure = ConfigFile::parse(two)
        .unwrap()
        .with_flags(&repository, &PrometheusFlags::default(), None, None)
        .unwrap_err();
    insta::assert_snapshot!(failure.to_string(), @"the file names several repositories: flags about one of them need --repo");
}

/// A file that can be read, in place of a key.
const SOME_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

fn with_repository(more: &str) -> String {
    format!("repositories: [{{url: a, {more}}}]\nprometheus: {{url: 'http://p:9090'}}\n")
}

#[test]
fn signing_and_verifying_are_read() {
    let text = with_repository(&format!(
        "sign: {{format: openpgp, key: 9b4b 3821 d569 4fc8 31a5 b3ff a982 12b5 47ea ce3e}}, verify: {{signers: {SOME_FILE}, keyring: {SOME_FILE}, strict: true}}"
    ));
    let config = complete(&text).unwrap();
    let repository = &config.repositories[0];
    insta::assert_debug_snapshot!(repository.sign.as_ref().unwrap().signing(), @r#"
    OpenPgp {
        key: Fingerprint(
            "9B4B3821D5694FC831A5B3FFA98212B547EACE3E",
        ),
    }
    "#);
    let verification = repository.verify.as_ref().unwrap().verification();
    assert!(
        verification.strict && verification.signers.is_some() && verification.keyring.is_some()
    );
    let text = with_repository(&format!("sign: {{key: {SOME_FILE}}}"));
    let config = complete(&text).unwrap();
    assert_eq!(
        config.repositories[0].sign.as_ref().unwrap().signing(),
        crate::git::Signing::Ssh {
            key: SOME_FILE.into()
        }
    );
}

#[test]
fn shards_have_a_limit() {
    let refused = |more: &str| mistake(&with_repository(more));
    insta::assert_snapshot!(refused("shards: 65"), @"1:33: `shards` is 65: write 1 to 64");
    insta::assert_snapshot!(refused("shards: 0"), @"1:33: `shards` is 0: write 1 to 64");
}

#[test]
fn signatures_that_cannot_work_are_refused() {
    let refused = |more: &str| mistake(&with_repository(more));
    let sign = format!("sign: {{key: {SOME_FILE}}}");
    insta::assert_snapshot!(refused("sign: {format: x509, key: a}"), @"1:40: unknown variant `x509`, expected one of ssh, openpgp");
    insta::assert_snapshot!(refused("sign: {key: nowhere}"), @"the key to sign with cannot be read: nowhere: No such file or directory (os error 2)");
    insta::assert_snapshot!(refused(&format!("verify: {{signers: {SOME_FILE}}}")), @"the head has to be signed, but Serin's own commits would not be: give `sign` a key, and add it to the allowed ones");
    insta::assert_snapshot!(refused(&format!("{sign}, verify: {{strict: true}}")), @"nobody's signature would be good: `verify` needs `signers` for SSH keys, or `keyring` or `fingerprints` for OpenPGP keys");
    insta::assert_snapshot!(refused(&format!("{sign}, verify: {{keyring: {SOME_FILE}, revoked: {SOME_FILE}}}")), @"`revoked` is about SSH keys, but there are no `signers`");
    insta::assert_snapshot!(refused("verify: {fingerprints: [9B4B3821]}"), @"1:48: `9B4B3821` is not a fingerprint: write all 40 hexadecimal digits that `gpg --list-keys` shows");
}

#[test]
fn flags_about_signatures_win_over_the_file() {
    let file = with_repository(&format!(
        "sign: {{format: openpgp, key: {SOME_FILE}}}, verify: {{keyring: {SOME_FILE}}}"
    ));
    let mut repository = RepositoryFlags::default();
    repository.signatures.sign_key = Some(SOME_FILE.to_owned());
    repository.signatures.verify_signers = Some(SOME_FILE.into());
    repository.signatures.verify_strict = true;
    let config = ConfigFile::parse(&file)
        .unwrap()
        .with_flags(&repository, &PrometheusFlags::default(), None, None)
        .unwrap();
    let one = &config.repositories[0];
    assert_eq!(one.sign.as_ref().unwrap().format, KeyFormat::Ssh);
    let verify = one.verify.as_ref().unwrap();
    assert!(verify.strict && verify.signers.is_some() && verify.keyring.is_some());
}

#[test]
fn repositories_have_names() {
    let file = ConfigFile::parse(
        "repositories:\n- url: https://git.example.com/team/apps.git\n- {url: https://git.example.com/other/apps.git, webhook: {secretFile: hush}}\n",
    )
    .unwrap();
    assert_eq!(file.repositories[0].name(), "apps");
    let refused = refuse_twins(&file.repositories).unwrap_err().to_string();
    assert!(refused.contains("both called `apps`"), "{refused}");
    let named = "repositories:\n- {url: a.git, name: NAME}\n";
    let renamed = ConfigFile::parse(&named.replace("NAME", "team-1.apps")).unwrap();
    assert_eq!(renamed.repositories[0].name(), "team-1.apps");
    for bad in ["''", "a/b", "'a b'", "ä"] {
        let error = ConfigFile::parse(&named.replace("NAME", bad)).unwrap_err();
        assert!(error.contains("is no name"), "{error}");
    }
}
