"""Real Helm for the tests, as a library: one call per run, JSON in and out.

    helm.py lint CHART VALUES              findings of `helm lint --strict`
    helm.py render CHART VALUES            manifests by template
    helm.py install CHART VALUES KUBECONFIG NAMESPACE
    helm.py upgrade CHART VALUES KUBECONFIG NAMESPACE
    helm.py uninstall KUBECONFIG NAMESPACE

VALUES is JSON. A failure prints {"error": "..."} and ends with status 1.
"""

import json
import sys

import helm_python as helm

RELEASE = "serin"


def main(command, *arguments):
    if command == "lint":
        chart, values = arguments
        return helm.lint(chart, json.loads(values), strict=True)
    if command == "render":
        chart, values = arguments
        chart = helm.Chart.load(chart)
        values = json.loads(values)
        chart.validate_schema(values)
        return chart.render(values, name=RELEASE, namespace="serin-system", is_install=True)
    if command in ("install", "upgrade"):
        chart, values, kubeconfig, namespace = arguments
        config = helm.Config(kubeconfig_path=kubeconfig, namespace=namespace)
        values = json.loads(values)
        if command == "install":
            config.install(chart, RELEASE, values, namespace=namespace, create_namespace=True)
        else:
            config.upgrade(chart, RELEASE, values, namespace=namespace)
        return {"done": command}
    if command == "uninstall":
        kubeconfig, namespace = arguments
        helm.Config(kubeconfig_path=kubeconfig, namespace=namespace).uninstall(RELEASE)
        return {"done": command}
    raise SystemExit(__doc__)


try:
    print(json.dumps(main(*sys.argv[1:]), default=str))
except helm.HelmError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit(1)
