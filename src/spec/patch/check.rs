//! Whether a patch fits a pod template, before anything is applied.

use serde_json::{Map, Value};

use super::{DELETE_FROM, ELEMENT_ORDER, Keyed, PATCH, RETAIN_KEYS, Shape, directive};

/// Whether `patch` can be applied to a pod template; if not, the first reason, for people.
pub fn check_patch(patch: &Value) -> Result<(), String> {
    let Value::Object(fields) = patch else {
        return Err(format!(
            "the patch is {}, expected an object with `metadata` or `spec` of the pod template",
            describe(patch)
        ));
    };
    if directive(fields) == Some("delete") {
        return Err("`$patch: delete` would delete the whole pod template".to_owned());
    }
    let known = |key: &str| key == "metadata" || key == "spec" || key.starts_with('$');
    if let Some(key) = fields.keys().find(|key| !known(key)) {
        return Err(format!(
            "`{key}` is not a field of a pod template: the patch starts at `spec.template` of the Deployment, write \
             `metadata` or `spec` first"
        ));
    }
    check_object(fields, Shape::Template, "")
}

fn check_object(fields: &Map<String, Value>, shape: Shape, path: &str) -> Result<(), String> {
    for (key, value) in fields {
        let here = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        if key.starts_with('$') {
            check_directive(key, value, &here)?;
            continue;
        }
        match value {
            Value::Object(_) if shape.keyed(key).is_some() => {
                return Err(format!("`{here}` is an object, expected a list"));
            }
            Value::Object(inner) => check_object(inner, shape.of_field(key), &here)?,
            Value::Array(items) => match shape.keyed(key) {
                Some(keyed) => check_list(items, keyed, &here)?,
                None => check_plain_list(items, &here)?,
            },
            Value::Null => {}
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                if shape == Shape::Template {
                    return Err(format!(
                        "`{here}` is {}, expected an object",
                        describe(value)
                    ));
                }
                if shape.keyed(key).is_some() {
                    return Err(format!("`{here}` is {}, expected a list", describe(value)));
                }
            }
        }
    }
    Ok(())
}

fn check_list(items: &[Value], keyed: Keyed, path: &str) -> Result<(), String> {
    for (index, item) in items.iter().enumerate() {
        let here = format!("{path}[{index}]");
        let Value::Object(fields) = item else {
            return Err(format!(
                "`{here}` is {}, expected an object with `{}`",
                describe(item),
                keyed.key
            ));
        };
        check_object(fields, keyed.item, &here)?;
        if !fields.contains_key(keyed.key) {
            if directive(fields) == Some("replace") && fields.len() == 1 {
                continue;
            }
            return Err(format!(
                "`{here}` lacks `{}`, which says which item it changes",
                keyed.key
            ));
        }
        let before = items.iter().take(index);
        if before.clone().any(|other| keyed.same(other, fields)) {
            return Err(format!(
                "`{here}` is there twice: `{}` {} was patched above",
                keyed.key,
                fields.get(keyed.key).unwrap_or(&Value::Null)
            ));
        }
    }
    Ok(())
}

/// Lists without a merge key are replaced as a whole, so a directive in one would reach the cluster as a field.
fn check_plain_list(items: &[Value], path: &str) -> Result<(), String> {
    for (index, item) in items.iter().enumerate() {
        if let Some(key) = item
            .as_object()
            .and_then(|fields| fields.keys().find(|key| key.starts_with('$')))
        {
            return Err(format!(
                "`{path}[{index}].{key}` has no effect: this list is replaced as a whole, write all of its items"
            ));
        }
    }
    Ok(())
}

fn check_directive(key: &str, value: &Value, path: &str) -> Result<(), String> {
    if key == PATCH {
        return match value.as_str() {
            Some("delete" | "replace" | "merge") => Ok(()),
            _ => Err(format!(
                "`{path}` is {value}, allowed are `delete`, `replace` and `merge`"
            )),
        };
    }
    if key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(ELEMENT_ORDER) {
        return if value.is_array() {
            Ok(())
        } else {
            Err(format!("`{path}` is {}, expected a list", describe(value)))
        };
    }
    Err(format!(
        "`{path}` is not a directive of strategic-merge patches, did you mean `$patch`?"
    ))
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;
    use serde_json::json;

    #[test]
    fn mistakes_are_named() {
        let mistakes: Vec<String> = [
            json!([]),
            json!({"containers": []}),
            json!({"$patch": "delete"}),
            json!({"spec": "x"}),
            json!({"spec": {"containers": {"name": "a"}}}),
            json!({"spec": {"volumes": 1}}),
            json!({"spec": {"containers": [{"image": "a"}]}}),
            json!({"spec": {"containers": ["a"]}}),
            json!({"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}),
            json!({"spec": {"containers": [{"name": "a", "$patch": "remove"}]}}),
            json!({"spec": {"$path": "replace"}}),
            json!({"spec": {"tolerations": [{"$patch": "replace"}]}}),
            json!({"metadata": {"$retainKeys": "name"}}),
        ]
        .iter()
        .map(|patch| check_patch(patch).unwrap_err())
        .collect();
        assert_snapshot!(mistakes.join("\n"), @r#"
        the patch is a list, expected an object with `metadata` or `spec` of the pod template
        `containers` is not a field of a pod template: the patch starts at `spec.template` of the Deployment, write `metadata` or `spec` first
        `$patch: delete` would delete the whole pod template
        `spec` is a string, expected an object
        `spec.containers` is an object, expected a list
        `spec.volumes` is a number, expected a list
        `spec.containers[0]` lacks `name`, which says which item it changes
        `spec.containers[0]` is a string, expected an object with `name`
        `spec.containers[1]` is there twice: `name` "a" was patched above
        `spec.containers[0].$patch` is "remove", allowed are `delete`, `replace` and `merge`
        `spec.$path` is not a directive of strategic-merge patches, did you mean `$patch`?
        `spec.tolerations[0].$patch` has no effect: this list is replaced as a whole, write all of its items
        `metadata.$retainKeys` is a string, expected a list
        "#);
    }
}
