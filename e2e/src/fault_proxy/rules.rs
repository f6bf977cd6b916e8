//! Which requests and events a fault meets.

use super::faults::{EventFault, EventKind, Fault, random};
use crate::write_count::{Request, Verb};

/// A class of requests: all conditions that are set must hold.
#[derive(Debug, Clone, Default)]
pub struct Class {
    verbs: Vec<Verb>,
    resource: Option<String>,
    except: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    user: Option<String>,
    agent: Option<String>,
    query: Option<String>,
    says: Option<String>,
    /// Dry runs are not of it.
    stored: bool,
}

impl Class {
    /// All requests.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Those with one of these verbs.
    #[must_use]
    pub fn of(verbs: impl IntoIterator<Item = Verb>) -> Self {
        Self { verbs: verbs.into_iter().collect(), ..Self::default() }
    }

    /// Those that change stored objects: no dry runs.
    #[must_use]
    pub fn writes() -> Self {
        Self { stored: true, ..Self::of(Verb::WRITES) }
    }

    /// Only those with this verb.
    #[must_use]
    pub fn verb(self, verb: Verb) -> Self {
        Self { verbs: vec![verb], ..self }
    }

    /// Only those on exactly this resource, such as `pods` or `pods/status`.
    #[must_use]
    pub fn resource(self, resource: &str) -> Self {
        Self { resource: Some(resource.to_owned()), ..self }
    }

    /// Not those on this resource.
    #[must_use]
    pub fn except(self, resource: &str) -> Self {
        Self { except: Some(resource.to_owned()), ..self }
    }

    /// Only those in this namespace.
    #[must_use]
    pub fn namespace(self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self }
    }

    /// Only those on objects of this name.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// Only those of this user.
    #[must_use]
    pub fn user(self, user: &str) -> Self {
        Self { user: Some(user.to_owned()), ..self }
    }

    /// Only those of clients whose user agent starts so.
    #[must_use]
    pub fn agent(self, prefix: &str) -> Self {
        Self { agent: Some(prefix.to_owned()), ..self }
    }

    /// Only those whose query has this in it, such as `continue=`.
    #[must_use]
    pub fn query(self, part: &str) -> Self {
        Self { query: Some(part.to_owned()), ..self }
    }

    /// Only those that tell users this ([`Request::says`]).
    #[must_use]
    pub fn says(self, says: &str) -> Self {
        Self { says: Some(says.to_owned()), ..self }
    }

    /// Whether a request is of the class.
    #[must_use]
    pub fn holds(&self, request: &Request) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        (self.verbs.is_empty() || self.verbs.contains(&request.verb))
            && is(&self.resource, &request.resource)
            && self.except.as_ref().is_none_or(|except| *except != request.resource)
            && is(&self.namespace, &request.namespace)
            && is(&self.name, &request.name)
            && is(&self.user, &request.user)
            && is(&self.says, &request.says)
            && !(self.stored && request.dry_run)
            && self.agent.as_ref().is_none_or(|prefix| request.user_agent.starts_with(prefix))
            && self.query.as_ref().is_none_or(|part| request.query.contains(part))
    }
}

/// Which ones of a class, counted from 1 since the rule was added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// All.
    Always,
    /// This one.
    Nth(u64),
    /// The first so many.
    First(u64),
    /// This one and all behind it.
    From(u64),
    /// Those that come after the first that met this rule.
    After(RuleId),
    /// Each with this probability, by random numbers that are the same in every run.
    Chance {
        /// From 0 to 1.
        probability: f64,
        /// Of the random numbers.
        seed: u64,
    },
}

impl When {
    /// `begun` are the rules that have met one.
    fn holds(self, nth: u64, begun: &[RuleId]) -> bool {
        match self {
            Self::Always => true,
            Self::Nth(wanted) => nth == wanted,
            Self::First(count) => nth <= count,
            Self::From(first) => nth >= first,
            Self::After(rule) => begun.contains(&rule),
            Self::Chance { probability, seed } => random(seed, nth) < probability,
        }
    }
}

/// Names a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleId(u64);

/// How often a rule was concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hits {
    /// Requests (events) of its class.
    pub matched: u64,
    /// Those that met the fault.
    pub fired: u64,
}

struct Rule<C, F> {
    id: RuleId,
    class: C,
    when: When,
    fault: F,
    hits: Hits,
}

impl<C, F: Clone> Rule<C, F> {
    /// Counts one of the class; the fault, where this one meets it, with its number.
    fn next(&mut self, begun: &[RuleId]) -> Option<(F, u64)> {
        self.hits.matched += 1;
        let fires = self.when.holds(self.hits.matched, begun);
        self.hits.fired += u64::from(fires);
        fires.then(|| (self.fault.clone(), self.hits.matched))
    }
}

/// Events of watches of a class, of some kinds.
struct Events {
    watches: Class,
    kinds: Vec<EventKind>,
}

/// All rules. A request meets the first fault that is due, in the order in which the rules were
/// added; the others count it all the same.
#[derive(Default)]
pub(super) struct Rules {
    last: u64,
    requests: Vec<Rule<Class, Fault>>,
    events: Vec<Rule<Events, EventFault>>,
}

impl Rules {
    fn id(&mut self) -> RuleId {
        self.last += 1;
        RuleId(self.last)
    }

    pub(super) fn add(&mut self, class: Class, when: When, fault: Fault) -> RuleId {
        let id = self.id();
        self.requests.push(Rule { id, class, when, fault, hits: Hits::default() });
        id
    }

    pub(super) fn add_events(
        &mut self,
        watches: Class,
        kinds: &[EventKind],
        when: When,
        fault: EventFault,
    ) -> RuleId {
        let id = self.id();
        let class = Events { watches, kinds: kinds.to_vec() };
        self.events.push(Rule { id, class, when, fault, hits: Hits::default() });
        id
    }

    pub(super) fn remove(&mut self, id: RuleId) {
        self.requests.retain(|rule| rule.id != id);
        self.events.retain(|rule| rule.id != id);
    }

    pub(super) fn clear(&mut self) {
        self.requests.clear();
        self.events.clear();
    }

    /// Whether there is such a rule for requests.
    pub(super) fn has(&self, id: RuleId) -> bool {
        self.requests.iter().any(|rule| rule.id == id)
    }

    pub(super) fn hits(&self, id: RuleId) -> Hits {
        let requests = self.requests.iter().map(|rule| (rule.id, rule.hits));
        let events = self.events.iter().map(|rule| (rule.id, rule.hits));
        requests.chain(events).find(|(of, _)| *of == id).map_or_else(Hits::default, |(_, hits)| hits)
    }

    /// Those that have met a request or an event.
    fn begun(&self) -> Vec<RuleId> {
        let requests = self.requests.iter().map(|rule| (rule.id, rule.hits));
        let events = self.events.iter().map(|rule| (rule.id, rule.hits));
        requests.chain(events).filter(|(_, hits)| hits.fired > 0).map(|(id, _)| id).collect()
    }

    pub(super) fn on_request(&mut self, request: &Request) -> Option<(RuleId, Fault, u64)> {
        let begun = self.begun();
        let mut due = None;
        for rule in self.requests.iter_mut().filter(|rule| rule.class.holds(request)) {
            let met = rule.next(&begun).map(|(fault, nth)| (rule.id, fault, nth));
            due = due.or(met);
        }
        due
    }

    pub(super) fn on_event(&mut self, watch: &Request, kind: EventKind) -> Option<(RuleId, EventFault)> {
        let begun = self.begun();
        let mut due = None;
        let of_kind = |kinds: &[EventKind]| kinds.is_empty() || kinds.contains(&kind);
        let rules = self.events.iter_mut();
        for rule in rules.filter(|rule| of_kind(&rule.class.kinds) && rule.class.watches.holds(watch)) {
            let met = rule.next(&begun).map(|(fault, _)| (rule.id, fault));
            due = due.or(met);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault_proxy::faults::{Answer, At};

    fn request(verb: Verb, resource: &str, agent: &str) -> Request {
        Request {
            user: "admin".into(),
            user_agent: agent.into(),
            verb,
            group: String::new(),
            resource: resource.into(),
            namespace: "a".into(),
            name: "p".into(),
            code: 0,
            dry_run: false,
            query: "limit=5".into(),
            received: None,
            says: "Running".into(),
        }
    }

    #[test]
    fn a_class_holds_where_all_of_its_conditions_do() {
        let pod = request(Verb::Create, "pods", "springtide/1 batch");
        let holding = [
            Class::any(),
            Class::of([Verb::Update, Verb::Create]).resource("pods").namespace("a").name("p").user("admin"),
            Class::writes().agent("springtide/").query("limit=").except("leases").says("Running"),
        ];
        for class in holding {
            assert!(class.holds(&pod), "{class:?}");
        }
        let others = [
            Class::of([Verb::Get]),
            Class::writes().resource("pods/status"),
            Class::any().namespace("b"),
            Class::any().name("q"),
            Class::any().user("somebody"),
            Class::any().agent("kubectl"),
            Class::any().query("continue="),
            Class::any().except("pods"),
            Class::any().says("Completed"),
        ];
        for class in others {
            assert!(!class.holds(&pod), "{class:?}");
        }
        let dry = Request { dry_run: true, ..pod };
        assert!(Class::any().holds(&dry) && !Class::writes().holds(&dry));
    }

    #[test]
    fn a_rule_meets_the_ones_of_its_class_that_it_counts() {
        let cases = [
            (When::Always, vec![1, 2, 3, 4, 5]),
            (When::Nth(3), vec![3]),
            (When::First(2), vec![1, 2]),
            (When::From(4), vec![4, 5]),
            (When::Chance { probability: 0.0, seed: 1 }, vec![]),
            (When::Chance { probability: 1.0, seed: 1 }, vec![1, 2, 3, 4, 5]),
        ];
        for (when, expected) in cases {
            let mut rules = Rules::default();
            let id = rules.add(Class::of([Verb::Create]), when, Fault::Silence);
            let mut met = Vec::new();
            for nth in 1..=5 {
                // One of another class is not counted.
                assert!(rules.on_request(&request(Verb::Get, "pods", "")).is_none());
                if rules.on_request(&request(Verb::Create, "pods", "")).is_some() {
                    met.push(nth);
                }
            }
            assert_eq!(met, expected, "{when:?}");
            assert_eq!(rules.hits(id), Hits { matched: 5, fired: expected.len() as u64 });
        }
    }

    #[test]
    fn a_seed_decides_the_same_in_every_run() {
        let run = |seed| {
            let when = When::Chance { probability: 0.3, seed };
            (1..=200).filter(|nth| when.holds(*nth, &[])).collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
        assert!((40..80).contains(&run(5).len()), "{}", run(5).len());
    }

    #[test]
    fn the_first_rule_that_is_due_decides_and_all_count() {
        let mut rules = Rules::default();
        let first = rules.add(Class::any(), When::Nth(2), Fault::Refuse(Answer::conflict()));
        let second = rules.add(Class::any(), When::Always, Fault::Reset(At::BeforeSend));
        let get = request(Verb::Get, "pods", "");
        let mut next = || rules.on_request(&get);
        assert_eq!(next(), Some((second, Fault::Reset(At::BeforeSend), 1)));
        assert_eq!(next(), Some((first, Fault::Refuse(Answer::conflict()), 2)));
        assert_eq!(rules.hits(second), Hits { matched: 2, fired: 2 });
        rules.remove(second);
        assert_eq!(rules.on_request(&get), None);
        assert_eq!(rules.hits(second), Hits::default(), "it is gone");
    }

    #[test]
    fn a_rule_can_wait_for_the_first_that_another_one_meets() {
        let mut rules = Rules::default();
        let (get, create) = (request(Verb::Get, "pods", ""), request(Verb::Create, "pods", ""));
        let first = rules.add(Class::of([Verb::Get]), When::Nth(2), Fault::Silence);
        let after = rules.add(Class::any(), When::After(first), Fault::Hold(At::BeforeSend));
        let mut met = |request| rules.on_request(request).map(|(id, ..)| id);
        assert_eq!([met(&create), met(&get), met(&create)], [None; 3]);
        assert_eq!([met(&get), met(&get), met(&create)], [Some(first), Some(after), Some(after)]);
    }

    #[test]
    fn events_are_met_by_the_kind_and_by_their_watch() {
        let mut rules = Rules::default();
        let pods = Class::any().resource("pods");
        let id = rules.add_events(pods, &[EventKind::Deleted], When::Nth(2), EventFault::Drop);
        let watch = request(Verb::Watch, "pods", "");
        assert_eq!(rules.on_event(&watch, EventKind::Deleted), None);
        assert_eq!(rules.on_event(&watch, EventKind::Added), None);
        assert_eq!(rules.on_event(&request(Verb::Watch, "nodes", ""), EventKind::Deleted), None);
        assert_eq!(rules.on_event(&watch, EventKind::Deleted), Some((id, EventFault::Drop)));
    }
}
