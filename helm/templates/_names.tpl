{{/* What things are called, and what they are labelled with. */}}

{{/* The prefix of all names; room is left for the longest suffix and a pod's. */}}
{{- define "chappe.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- .Values.fullnameOverride | default $full | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* What is selected by, and so immutable, and all that a pod has: a label that came with the chart's
version would restart it. Call with (dict "root" $ "component" "broker"). */}}
{{- define "chappe.selector" -}}
app.kubernetes.io/name: {{ .root.Values.nameOverride | default .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "chappe.labels" -}}
{{ include "chappe.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "chappe.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* What a pod's restart hangs on: a changed configuration is a changed annotation. */}}
{{- define "chappe.checksum" -}}
{{ include "chappe.toml" . | sha256sum }}
{{- end }}
