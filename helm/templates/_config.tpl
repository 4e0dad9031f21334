{{/* chappe.toml: the values under `config`, and what the chart knows better. */}}

{{- define "chappe.toml" -}}
{{- $config := include "chappe.config" . | fromYaml -}}
{{- include "chappe.toml.table" (dict "table" $config "path" "") | trim -}}
{{- end }}

{{- define "chappe.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $listen := dict "tcp" "0.0.0.0:7400" "quic" "0.0.0.0:7400" "admin" "0.0.0.0:7401" -}}
{{- $auth := $config.auth -}}
{{- if eq (toString $auth.development) "auto" -}}
{{- $_ := set $auth "development" (and (eq .Values.mode "embedded") (not $auth.jwks_url) (not $auth.api_keys)) -}}
{{- end -}}
{{- $own := dict "listen" $listen "data" "/var/lib/chappe" "gateway" (dict "drain" (printf "%ds" (int64 .Values.stop.drainSeconds))) -}}
{{- if eq .Values.mode "clustered" -}}
{{- $_ := set $listen "uplink" "0.0.0.0:7402" -}}
{{- $own = merge $own (include "chappe.config.clustered" . | fromYaml) -}}
{{- end -}}
{{- mergeOverwrite $config $own | toYaml -}}
{{- end }}

{{- define "chappe.config.clustered" -}}
log:
  kind: kafka
  brokers: {{ toJson .Values.kafka.brokers }}
  topic: {{ .Values.kafka.topic | quote }}
  group: {{ .Values.kafka.group | quote }}
  {{- if .Values.kafka.tls }}
  tls: true
  {{- end }}
  {{- if .Values.kafka.login.existingSecret }}
  mechanism: {{ .Values.kafka.mechanism }}
  {{- end }}
  {{- if .Values.kafka.ca.existingSecret }}
  tls_ca: /etc/chappe/kafka-ca/ca.crt
  {{- end }}
store:
  kind: scylla
  nodes: {{ toJson .Values.scylla.nodes }}
  keyspace: {{ .Values.scylla.keyspace | quote }}
  datacenter: {{ .Values.scylla.datacenter | quote }}
  {{- if .Values.scylla.tls }}
  tls: true
  {{- end }}
  {{- if .Values.scylla.ca.existingSecret }}
  tls_ca: /etc/chappe/scylla-ca/ca.crt
  {{- end }}
{{- if .Values.redis.url }}
presence:
  kind: redis
  url: {{ .Values.redis.url | quote }}
{{- end }}
{{- if .Values.s3.url }}
blobs:
  # Its kind is set where its keys are.
  url: {{ .Values.s3.url | quote }}
  bucket: {{ .Values.s3.bucket | quote }}
  region: {{ .Values.s3.region | quote }}
{{- end }}
uplink:
  # The headless Service's name resolves to every broker, and is resolved again when they change.
  brokers: [{{ printf "%s-broker.%s.svc:7402" (include "chappe.fullname" .) .Release.Namespace | quote }}]
  {{- if .Values.uplink.tlsSecret }}
  tls:
    ca: /etc/chappe/uplink/ca.crt
    cert: /etc/chappe/uplink/tls.crt
    key: /etc/chappe/uplink/tls.key
  {{- end }}
{{- end }}

{{/* A table: its values first, then its tables. What is empty has the server's default. */}}
{{- define "chappe.toml.table" -}}
{{- $path := .path -}}
{{- range $key, $value := .table }}
{{- if and (not (kindIs "map" $value)) (not (or (kindIs "invalid" $value) (eq (toString $value) "") (eq (toString $value) "[]"))) }}
{{ $key }} = {{ include "chappe.toml.value" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if and (kindIs "map" $value) $value }}
{{- $name := ternary (printf "%s.%s" $path $key) $key (ne $path "") }}

[{{ $name }}]
{{- include "chappe.toml.table" (dict "table" $value "path" $name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* A JSON string is a TOML string. Numbers come as floats and are all whole. */}}
{{- define "chappe.toml.value" -}}
{{- if kindIs "string" . }}{{ toRawJson . }}
{{- else if kindIs "bool" . }}{{ . }}
{{- else if kindIs "slice" . }}[{{ range $index, $item := . }}{{ if $index }}, {{ end }}{{ include "chappe.toml.value" $item }}{{ end }}]
{{- else if kindIs "map" . }}{ {{- range $index, $key := keys . | sortAlpha }}{{ if $index }},{{ end }} {{ $key }} = {{ include "chappe.toml.value" (get $ $key) }}{{ end }} }
{{- else }}{{ int64 . }}
{{- end }}
{{- end }}
