{{- define "serin.name" -}}
{{- if contains "serin" .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-serin" .Release.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "serin.selector" -}}
app.kubernetes.io/name: serin
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "serin.labels" -}}
{{ include "serin.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "serin.serviceAccount" -}}
{{- default (ternary (include "serin.name" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "serin.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end }}

{{- define "serin.config" -}}
{{- $cluster := merge (dict "connect" "in-cluster") .Values.cluster }}
{{- $config := dict "repositories" .Values.repositories "prometheus" .Values.prometheus "cluster" $cluster "listen" (printf "0.0.0.0:%d" (int .Values.service.port)) "cacheDir" "/var/cache/serin" "leases" (dict "namespace" .Release.Namespace "name" (include "serin.name" .)) }}
{{- mergeOverwrite $config .Values.extraConfig | toYaml }}
{{- end }}

{{/* Settings for the git program, as GIT_CONFIG_KEY_n and GIT_CONFIG_VALUE_n. */}}
{{- define "serin.gitConfig" -}}
{{- $entries := list }}
{{- range $i, $credential := .Values.git.https }}
{{- $helper := printf "!f() { test \"$1\" = get && echo \"username=$(cat /etc/serin/git/https-%d/username)\" && echo \"password=$(cat /etc/serin/git/https-%d/password)\"; }; f" $i $i }}
{{- $entries = append $entries (dict "key" (printf "credential.%s.helper" $credential.url) "value" $helper) }}
{{- end }}
{{- if .Values.git.caSecret }}
{{- $entries = append $entries (dict "key" "http.sslCAInfo" "value" "/etc/serin/git/ca/ca.crt") }}
{{- end }}
{{- if $entries }}
- name: GIT_CONFIG_COUNT
  value: {{ len $entries | quote }}
{{- range $i, $entry := $entries }}
- name: GIT_CONFIG_KEY_{{ $i }}
  value: {{ $entry.key | quote }}
- name: GIT_CONFIG_VALUE_{{ $i }}
  value: {{ $entry.value | quote }}
{{- end }}
{{- end }}
{{- end }}
