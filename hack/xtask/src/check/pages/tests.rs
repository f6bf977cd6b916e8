use super::*;
use crate::schema;

fn judged(block: &str) -> Vec<String> {
    let shapes: Vec<Shape> = springtide_crds::all().iter().flat_map(shapes).collect();
    judge(block, &shapes)
}

/// A job with these fields in its spec.
fn job(fields: &str) -> String {
    format!(
        "apiVersion: springtide.dev/v1alpha1\nkind: BatchJob\nmetadata: {{name: a, labels: {{a: b}}}}\nspec:\n  {fields}\n  \
         template: {{spec: {{containers: [{{name: main, image: app, fieldOfTheFuture: 1}}], volumes: []}}}}\n"
    )
}

#[test]
fn blocks_are_found_with_their_lines() {
    let page = "# Page\n\n```yaml\na: 1\n```\n```console\n$ b: 2\n```\n\n```yaml\n  c: 3\n\n  d: 4\n";
    assert_eq!(blocks(page), [(3, "a: 1\n".to_owned()), (10, "  c: 3\n\n  d: 4\n".to_owned())]);
}

#[test]
fn what_fits_has_no_problem() {
    for block in [
        job("completions: 3 # tasks"),
        job("interruption: {graceSeconds: 0}"),
        "apiVersion: springtide.dev/v1alpha1\nkind: BatchQueue\nspec:\n  quota: [{resource: cpu, nominal: 20}]\n".to_owned(),
        "  quota:\n  - {resource: cpu, nominal: \"20\"}\n".to_owned(),
        "spec:\n  release: {keepFailedPods: 2}\n".to_owned(),
        "  maxMode: Initial\n".to_owned(),
        // Of others.
        "apiVersion: batch/v1\nkind: Job\nspec: {nonsense: 1}\n---\napiVersion: v1\nkind: Pod\n".to_owned(),
        "controllers: {batchJob: {}}\n".to_owned(),
        "    filters:\n    - name: grep\n".to_owned(),
    ] {
        assert_eq!(judged(&block), Vec::<String>::new(), "{block}");
    }
}

#[test]
fn what_does_not_fit_is_named_with_its_path() {
    for (block, problem) in [
        (job("completion: 3"), "spec.completion is no field of this kind"),
        (job("release: {keepPods: 3}"), "spec.release.keepPods is no field of this kind"),
        (job("completions: 0"), "spec.completions is 0, and should be from 1 to 100000"),
        (job("completions: \"3\""), "spec.completions is \"3\", and should be of type integer"),
        (job("completions: 1.5"), "spec.completions is 1.5, and should be of type integer"),
        (job("completions:"), "spec.completions is null, and should be of type integer"),
        (job("tier: Best"), "spec.tier is \"Best\", and should be one of [\"BestEffort\","),
        (job("queueName: A_b"), "spec.queueName is \"A_b\", and should match"),
        (job("managedBy: springtide"), "spec.managedBy is \"springtide\", and should match"),
        (
            job("podFailurePolicy: {rules: [{action: Count, onPodConditions: [{type: \"\"}]}]}"),
            "spec.podFailurePolicy.rules[0].onPodConditions[0].type has 0 characters, and should have 1 to 316",
        ),
        (job("successPolicy: {rules: []}"), "spec.successPolicy.rules has 0 items, and should have 1 to 1"),
        (
            job("retry: {onOOM: {maxMemory: lots}}"),
            "spec.retry.onOOM.maxMemory is \"lots\", and should match",
        ),
        (
            "apiVersion: springtide.dev/v1alpha1\nkind: BatchJob\nspec: {}\n".to_owned(),
            "spec has no template, which is required",
        ),
        (
            "apiVersion: springtide.dev/v1\nkind: BatchJob\n".to_owned(),
            "there is no BatchJob in springtide.dev/v1",
        ),
        (
            "apiVersion: springtide.dev/v1alpha1\nkind: Job\n".to_owned(),
            "there is no Job in springtide.dev/v1alpha1",
        ),
        (
            "  tiers: [{name: Standard}, {name: Standard}]\n".to_owned(),
            "of a BatchQueue: spec.tiers has an item twice",
        ),
        (
            "  tiers: [{name: Standard, preemptible: {by: [Standard, Standard]}}]\n".to_owned(),
            "spec.tiers[0].preemptible.by has an item twice",
        ),
        (
            "  overridePeak: {mode: ForceOff, reason: a, untilTime: tomorrow}\n".to_owned(),
            "spec.overridePeak.untilTime is \"tomorrow\", and should be a time",
        ),
        (
            "  capacitySource: {nodeSelector: {matchLabels: {}}}\n".to_owned(),
            "spec.capacitySource.nodeSelector.matchLabels has 0 entries",
        ),
        ("  maxTeir: Standard\n".to_owned(), "spec.maxTeir is no field of this kind"),
        (
            "apiVersion: springtide.dev/v1alpha1\nkind: BatchQueue\nspec: {}\nstatsu: {}\n".to_owned(),
            "statsu is no field of this kind",
        ),
        ("  a: [\n".to_owned(), "is not YAML"),
    ] {
        let found = judged(&block);
        assert!(found.len() == 1 && found[0].contains(problem), "{problem} in {found:?} of\n{block}");
    }
}

/// The keywords that are looked at, or say nothing about what fits. Rules in CEL are the API server's.
const KNOWN: [&str; 23] = [
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

#[test]
fn no_keyword_of_the_schemas_is_passed_over() {
    let mut unknown = Vec::new();
    for shape in springtide_crds::all().iter().flat_map(shapes) {
        schema::walk("spec", &shape.root["properties"]["spec"], &mut |node| {
            let keywords = node.schema.as_object().into_iter().flatten().map(|(keyword, _)| keyword);
            let strange = keywords.filter(|keyword| !KNOWN.contains(&keyword.as_str()));
            unknown.extend(strange.map(|keyword| format!("{} {keyword}", node.path)));
        });
    }
    assert_eq!(unknown, Vec::<String>::new());
}
