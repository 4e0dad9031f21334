"""What helm-check holds the chart to."""
