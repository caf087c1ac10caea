//! Which cluster to act on, and how: a word, or a mapping in the configuration file.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use crate::applier::Mode;
use crate::cluster::{Access, Agent, FluxKind};

/// Which cluster to act on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum ClusterChoice {
    /// None: Git and Prometheus alone; somebody else applies what is in Git.
    #[default]
    None,
    /// A Kubernetes API.
    Kubernetes(Access),
}

/// The `cluster` of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ClusterConfig {
    /// Which.
    pub(super) choice: ClusterChoice,
    /// How.
    pub(super) conduct: Conduct,
}

/// What is done in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Conduct {
    /// Which cluster: `none`, `in-cluster`, `kubeconfig` or `kubeconfig:CONTEXT`.
    #[serde(default)]
    connect: Option<ClusterChoice>,
    /// The kubeconfig file; default: what `kubectl` would read.
    #[serde(default)]
    kubeconfig: Option<PathBuf>,
    /// Who applies what is in Git.
    #[serde(default)]
    pub(super) applier: Applier,
    /// What is done about objects that people change in the cluster.
    #[serde(default)]
    mode: ModeName,
    /// Whether objects go from the cluster that Git no longer has.
    #[serde(default)]
    pub(super) prune: bool,
    /// Whether Namespaces and definitions of kinds go as well.
    #[serde(default)]
    pub(super) prune_namespaces: bool,
    /// Longest time for one request to the cluster.
    #[serde(
        default = "default_deadline",
        deserialize_with = "super::config::interval"
    )]
    pub(super) timeout: Duration,
}

/// Who applies what is in Git.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Applier {
    /// Serin.
    #[default]
    Serin,
    /// Flux, Argo CD, or anybody else.
    External,
}

/// See [`Mode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum ModeName {
    #[default]
    Enforce,
    Warn,
    Off,
}

// === impl ClusterChoice ===

impl FromStr for ClusterChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kubeconfig = |context: Option<&str>| {
            Self::Kubernetes(Access::Kubeconfig {
                path: None,
                context: context.map(str::to_owned),
            })
        };
        match (text, text.split_once(':')) {
            ("none", _) => Ok(Self::None),
            ("in-cluster", _) => Ok(Self::Kubernetes(Access::InCluster)),
            ("kubeconfig", _) => Ok(kubeconfig(None)),
            (_, Some(("kubeconfig", context))) if !context.is_empty() => {
                Ok(kubeconfig(Some(context)))
            }
            _ => Err(format!(
                "`{text}` names no cluster: write `none`, `in-cluster`, `kubeconfig` or `kubeconfig:CONTEXT`"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for ClusterChoice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

// === impl Conduct ===

fn default_deadline() -> Duration {
    Duration::from_secs(10)
}

impl Default for Conduct {
    fn default() -> Self {
        Self {
            connect: None,
            kubeconfig: None,
            applier: Applier::default(),
            mode: ModeName::default(),
            prune: false,
            prune_namespaces: false,
            timeout: default_deadline(),
        }
    }
}

impl Conduct {
    /// What is done about drift.
    pub(super) fn mode(&self) -> Mode {
        match self.mode {
            ModeName::Enforce => Mode::Enforce,
            ModeName::Warn => Mode::Warn,
            ModeName::Off => Mode::Off,
        }
    }
}

// === impl ClusterConfig ===

impl ClusterConfig {
    /// The same conduct in a cluster that a flag names.
    pub(super) fn with(mut self, choice: Option<ClusterChoice>) -> Self {
        if let Some(choice) = choice {
            self.choice = choice;
        }
        if let (ClusterChoice::Kubernetes(Access::Kubeconfig { path, .. }), Some(file)) =
            (&mut self.choice, &self.conduct.kubeconfig)
        {
            *path = Some(file.clone());
        }
        self
    }
}

impl<'de> Deserialize<'de> for ClusterConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ClusterConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`none`, `in-cluster`, `kubeconfig`, or a mapping with `connect`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ClusterConfig, E> {
                let choice = text.parse().map_err(E::custom)?;
                Ok(ClusterConfig {
                    choice,
                    conduct: Conduct::default(),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ClusterConfig, A::Error> {
                let conduct =
                    Conduct::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                let default = ClusterChoice::Kubernetes(Access::Kubeconfig {
                    path: None,
                    context: None,
                });
                let named = conduct.kubeconfig.is_some().then_some(default);
                let choice = conduct.connect.clone().or(named).unwrap_or_default();
                Ok(ClusterConfig { choice, conduct })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// An object of Flux or Argo CD that is told of each new commit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct PokeConfig {
    kind: AgentKind,
    namespace: String,
    name: String,
}

/// Kinds that can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum AgentKind {
    GitRepository,
    Kustomization,
    Application,
}

impl PokeConfig {
    /// As the adapter knows it.
    pub(super) fn agent(&self) -> Agent {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        let flux = |kind| Agent::Flux {
            kind,
            namespace: namespace.clone(),
            name: name.clone(),
        };
        match self.kind {
            AgentKind::GitRepository => flux(FluxKind::GitRepository),
            AgentKind::Kustomization => flux(FluxKind::Kustomization),
            AgentKind::Application => Agent::ArgoCd { namespace, name },
        }
    }
}

/// Where several replicas find one another.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct LeasesConfig {
    /// Namespace of the Leases.
    pub(super) namespace: String,
    /// What the names of the Leases begin with: one installation, one name.
    #[serde(default = "default_group", deserialize_with = "group")]
    pub(super) name: String,
}

/// It begins the names of objects, and is the value of a label.
fn group<'de, D: serde::Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let name = String::deserialize(d)?;
    if crate::lease::is_object_name(&name) && name.len() <= 63 {
        return Ok(name);
    }
    Err(serde::de::Error::custom(format!(
        "`leases.name` is `{name}`: the names of Leases begin with it, so write up to 63 lower-case letters, digits, dots and \
         hyphens, with a letter or a digit at both ends"
    )))
}

fn default_group() -> String {
    "serin".to_owned()
}

/// A service account as `namespace/name`.
pub(super) fn service_account(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(format!(
            "`{text}` is no service account: write <namespace>/<name>"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ClusterConfig, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_word_or_a_mapping_names_the_cluster() {
        let word = read("in-cluster").unwrap();
        assert_eq!(word.choice, ClusterChoice::Kubernetes(Access::InCluster));
        assert_eq!(word.conduct, Conduct::default());
        let text =
            "{connect: 'kubeconfig:prod', applier: external, mode: warn, prune: true, timeout: 3s}";
        let mapping = read(text).unwrap();
        let context = Some("prod".to_owned());
        let access = Access::Kubeconfig {
            path: None,
            context,
        };
        assert_eq!(mapping.choice, ClusterChoice::Kubernetes(access));
        assert_eq!(mapping.conduct.applier, Applier::External);
        assert_eq!(mapping.conduct.mode(), Mode::Warn);
        assert_eq!(mapping.conduct.timeout, Duration::from_secs(3));
    }

    #[test]
    fn a_flag_chooses_the_cluster_and_the_file_says_how() {
        let file = read("{kubeconfig: /etc/kube, mode: off}").unwrap();
        let chosen = file.with(Some("kubeconfig:dev".parse().unwrap()));
        let access = Access::Kubeconfig {
            path: Some("/etc/kube".into()),
            context: Some("dev".to_owned()),
        };
        assert_eq!(chosen.choice, ClusterChoice::Kubernetes(access));
        assert_eq!(chosen.conduct.mode(), Mode::Off);
    }

    #[test]
    fn mistakes_say_what_is_possible() {
        let unknown = "mars".parse::<ClusterChoice>().unwrap_err();
        assert!(unknown.contains("in-cluster"), "{unknown}");
        assert!(read("{mode: loud}").unwrap_err().contains("warn"));
        assert!(service_account("serin").is_err());
        let leases = |name: &str| {
            let text = format!("{{namespace: serin, name: {name}}}");
            serde_yaml::from_str::<LeasesConfig>(&text).map_err(|error| error.to_string())
        };
        assert!(leases("team-a").is_ok(), "{:?}", leases("team-a"));
        let refused = leases("Team_A").unwrap_err();
        assert!(refused.contains("lower-case"), "{refused}");
    }
}
