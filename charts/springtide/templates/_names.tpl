{{/* Name of everything that is installed: the release's, with the chart's where it does not hold it. */}}
{{- define "springtide.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 42 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 42 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* What tells our pods from all others; never changes in an upgrade. */}}
{{- define "springtide.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What the chart itself says of each object. */}}
{{- define "springtide.own-labels" -}}
{{ include "springtide.selector" . }}
app.kubernetes.io/part-of: springtide
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The labels of each object. */}}
{{- define "springtide.labels" -}}
{{ include "springtide.own-labels" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A digest names one image for ever, so it wins over a tag. */}}
{{- define "springtide.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "springtide.subject" -}}
- kind: ServiceAccount
  name: {{ include "springtide.name" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* The manager's configuration file. */}}
{{- define "springtide.configuration" -}}
apiVersion: config.springtide.dev/v1alpha1
kind: ManagerConfiguration
controllers:
  {{- toYaml .Values.controllers | nindent 2 }}
scope:
  {{- toYaml .Values.scope | nindent 2 }}
leaderElection:
  {{- toYaml .Values.leaderElection | nindent 2 }}
logging:
  {{- toYaml .Values.logging | nindent 2 }}
tracing:
  {{- toYaml .Values.tracing | nindent 2 }}
writeBudget:
  {{- toYaml .Values.writeBudget | nindent 2 }}
breaker:
  {{- toYaml .Values.breaker | nindent 2 }}
metricQueries:
  {{- toYaml .Values.metricQueries | nindent 2 }}
{{- end }}

{{/* Of it what changes only with a new process: a change of anything else needs no new pods. */}}
{{- define "springtide.restart" -}}
{{- list .Values.controllers .Values.scope .Values.leaderElection .Values.breaker .Values.logging.format .Values.tracing .Values.metricQueries | toJson | sha256sum -}}
{{- end }}

{{/* The namespaces that the manager is held to, by commas; nothing where it acts in the whole cluster. */}}
{{- define "springtide.namespaces" -}}
{{- $scope := .Values.scope -}}
{{- if eq $scope.type "Namespaces" -}}
{{- required "scope.namespaces: name a namespace at least, as scope.type is Namespaces" (join "," $scope.namespaces) -}}
{{- else if $scope.namespaces -}}
{{- fail "scope.namespaces: must be empty, as scope.type is Cluster; set scope.type=Namespaces to hold to them" -}}
{{- end -}}
{{- end }}
